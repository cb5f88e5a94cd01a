"""One prompt, one action, one outcome: the episodes that a learner lives through.

Axes: P prompts, F features.
"""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tasks.train_controller.learn.reward import Reward
from tasks.train_controller.learn.table import Table


class Asked(Protocol):
    """Prompts by their numbers: a `Table` in which all was measured, or those that are really answered now."""

    @property
    def actions(self) -> tuple[str, ...]:
        """What may be done, "none" first."""

    @property
    def features(self) -> tuple[str, ...]:
        """What is seen of each prompt."""

    def __len__(self) -> int:
        """How many prompts."""

    def state(self, prompt: int) -> Tensor:
        """What is seen before the decision, (F,), 0 to 1."""

    def outcome(self, prompt: int, action: int) -> tuple[float, float]:
        """Of the action with this number: its speed against "none", and by how much the perplexity rises."""


class World(Protocol):
    """Something to act in, with the two methods of a `gymnasium.Env`."""

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode: what is seen, and what is known besides."""

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """What is seen then, the reward, whether that was the end, whether it was cut short, what is known besides."""


class Trials:
    """A `World` of prompts, which come in a random order, all of them before any comes again.

    Each episode is one prompt and ends with its answer.
    """

    def __init__(self, asked: Asked, floor: float, reward: Reward) -> None:
        self.asked, self.floor, self.reward = asked, floor, reward
        self.begin(np.random.default_rng(0))

    def begin(self, random: np.random.Generator) -> None:
        """Start anew, in an order drawn from `random`."""
        self._random, self._waiting, self._prompt = random, list[int](), -1

    def reset(self, *, seed: int | None = None) -> tuple[Tensor, dict[str, Any]]:
        """The next prompt; of the order drawn with `seed`, if it is given, the first one."""
        if seed is not None:
            self.begin(np.random.default_rng(seed))
        if not self._waiting:
            self._waiting = self._random.permutation(len(self.asked)).tolist()
        self._prompt = self._waiting.pop()
        self._state_F = self.asked.state(self._prompt)
        return self._state_F, {"prompt": self._prompt}

    def step(self, action: int) -> tuple[Tensor, float, bool, bool, dict[str, Any]]:
        """Answer the prompt. Raises ValueError where none waits, and for an action that is none."""
        if self._prompt < 0:
            raise ValueError("step: no prompt waits for an action, valid is a reset before each step")
        if not 0 <= action < len(self.asked.actions):
            raise ValueError(f"action: {action} given, valid is 0 to {len(self.asked.actions) - 1}")
        prompt, self._prompt = self._prompt, -1
        ratio, rise = self.asked.outcome(prompt, int(action))
        paid = self.reward.once(ratio, rise, self.floor)
        return self._state_F, paid, True, False, {"prompt": prompt, "ratio": ratio, "rise": rise}


def mean_reward(table: Table, floor: float, reward: Reward, choice_P: Tensor) -> float:
    """Of the actions with these numbers, one for each prompt."""
    chosen_P1 = choice_P[:, None]
    paid_P1 = reward.of(table.ratio_PA.gather(1, chosen_P1), table.rise_PA.gather(1, chosen_P1), floor)
    return torch.mean(paid_P1).item()
