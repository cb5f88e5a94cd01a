"""A model whose parts can lose rungs and get them back, and what is left of each part, for a gradient to be taken."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from tasks.train_controller.allocators.problem import Levels, Problem


@dataclass(frozen=True, kw_only=True)
class Lever:
    """A tensor of the model that rungs go from, element by element: `value`, a leaf that takes a gradient.

    `full`: the same with all rungs there. `outlasts`: the rungs that each element outlasts; with one more it is zero.
    All of one shape.
    """

    value: Tensor
    full: Tensor
    outlasts: Tensor


class Rungs(ABC):
    """A model whose parts can lose rungs and get them back."""

    model: PreTrainedModel
    problem: Problem

    @abstractmethod
    def share(self, place: int, rungs: int) -> float:
        """Of the units or weights of the part at this place among the parts, how much goes with so many rungs."""

    @abstractmethod
    def applied(self, levels: Levels) -> AbstractContextManager[None]:
        """Within, the model computes what it would without these rungs; behind, it is to the bit what it was."""

    @abstractmethod
    def levers(self, levels: Levels) -> AbstractContextManager[Sequence[Sequence[Lever]]]:
        """As `applied`, and within nothing of the model takes a gradient but these levers, those of each part."""
