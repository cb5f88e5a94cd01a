"""What a learner leaves: predictions of each action's value and strain, and the guard of the floor.

Axes: N prompts, A actions, F features.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from tasks.train_controller.learn.guard import Guard
from tasks.train_controller.observation import HARDWARE_FEATURES

STILL = 1e-3  # a feature whose standard deviation is below this says nothing
OUTER = 3.0  # standard deviations; whatever lies further out is treated as if it lay there


@dataclass(frozen=True, kw_only=True, eq=False)
class Standard:
    """Standardises states as those of the training prompts were; a feature that stood still there is 0 for ever."""

    center_F: Tensor
    scale_F: Tensor  # 1 / standard deviation
    prompt_F: Tensor  # 1 for a feature of the prompt, 0 for one of the hardware

    @classmethod
    def of(cls, state_PF: Tensor, features: Sequence[str]) -> Self:
        """Of the training prompts."""
        deviation_F = state_PF.std(0, correction=0)
        scale_F = torch.where(deviation_F < STILL, 0.0, 1 / deviation_F)
        prompt_F = torch.tensor([name not in HARDWARE_FEATURES for name in features], dtype=torch.float64)
        return cls(center_F=state_PF.mean(0), scale_F=scale_F, prompt_F=prompt_F)

    def __call__(self, state_NF: Tensor) -> Tensor:
        return ((state_NF.double() - self.center_F) * self.scale_F).clamp(-OUTER, OUTER)

    def views(self, state_NF: Tensor) -> Tensor:
        """What gain and what strain are predicted from, (2, N, F), the second with the hardware at 0.

        The speed of an action depends on the machine. What it costs in quality does not, and what is predicted of that
        has to hold on a machine that no training prompt has seen.
        """
        seen_NF = self(state_NF)
        return torch.stack([seen_NF, seen_NF * self.prompt_F])


class Predictor(ABC):
    """What is known of every action before it is tried: a few small tensors and numbers."""

    @abstractmethod
    def predict(self, state_NF: Tensor) -> tuple[Tensor, Tensor]:
        """The value and the strain (tasks.train_controller.learn.guard) of each action, both (N, A)."""

    @property
    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All of its tensors by name."""

    @property
    def settings(self) -> dict[str, Any]:
        """What else it needs, as JSON can hold it."""
        return {}

    @classmethod
    @abstractmethod
    def of(cls, tensors: dict[str, Tensor], settings: dict[str, Any]) -> Self:
        """The one with these `tensors` and `settings`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Policy:
    """Of the actions that meet the floor, by what is predicted and a margin, the one of the highest value.

    It draws nothing: the same state gives the same action.
    """

    learner: str
    actions: tuple[str, ...]
    features: tuple[str, ...]
    floor: float
    predictor: Predictor
    guard: Guard

    def __post_init__(self) -> None:
        if len(self.guard.free_A) != len(self.actions):
            raise ValueError(f"actions: {len(self.actions)} given, valid is the guard's {len(self.guard.free_A)}")

    def scores_A(self, state_F: Tensor) -> Tensor:
        """The value of every action; −inf where it may not be taken.

        Raises ValueError for a state of another length, or with a number that is none.
        """
        finite = math.isfinite(state_F.sum())
        if state_F.shape != (len(self.features),) or not finite:
            given = f"{tuple(state_F.shape)}" if finite else "a number that is not finite"
            raise ValueError(f"state: {given} given, valid is {len(self.features)} finite numbers")
        return self.guard.scores(*self.predictor.predict(state_F[None]))[0]

    def choose(self, state_F: Tensor) -> int:
        """The number of the action to take. Errors as `scores_A`."""
        return int(self.scores_A(state_F).argmax())

    def choices(self, state_PF: Tensor) -> Tensor:
        """Of many prompts, (P,); each as `choose` has it."""
        return torch.tensor([self.choose(state_F) for state_F in state_PF], dtype=torch.long)
