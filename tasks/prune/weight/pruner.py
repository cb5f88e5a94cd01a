"""What every pruner does, apart from its formula: checks, precision, and the way from scores to a pruned matrix.

Axes: O outputs, I inputs of the linear.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tasks.calibrate.observers import Observer
from tasks.prune.weight.pattern import Pattern


@dataclass(frozen=True, kw_only=True)
class Pruner(ABC):
    """A method with its hyper-parameters. `observes` is the observer that it needs of the inputs, or None."""

    observes: ClassVar[type[Observer] | None] = None

    def prune(self, weight_OI: Tensor, stat: Any, pattern: Pattern) -> Tensor:
        """The pruned matrix, a new tensor of the same dtype and device; `stat` is an instance of `observes`, or None.

        Raises ValueError for a weight that is not a matrix of finite floats, a `stat` of another kind or width, and a
        pattern that does not divide the inputs.
        """
        pruned_OI, _ = self.prune_and_keep(weight_OI, stat, pattern)
        return pruned_OI

    def prune_and_keep(self, weight_OI: Tensor, stat: Any, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """As `prune`, and beside it which weights stay: bool (O, I). A weight that stays may be 0 by itself."""
        self._check(weight_OI, stat, pattern)
        with torch.no_grad():
            pruned_OI, keep_OI = self._prune(weight_OI.detach(), stat, pattern)
        self._check_result(weight_OI, pruned_OI, pattern)
        return pruned_OI, keep_OI

    @abstractmethod
    def score(self, weight_OI: Tensor, stat: Any) -> Tensor:
        """How much each weight matters before any other has gone, (O, I), in float32 or better."""

    @abstractmethod
    def _prune(self, weight_OI: Tensor, stat: Any, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """`prune_and_keep` on checked arguments."""

    def _check_result(self, weight_OI: Tensor, pruned_OI: Tensor, pattern: Pattern) -> None:
        if pruned_OI.shape != weight_OI.shape or pruned_OI.dtype != weight_OI.dtype:
            made = f"{pruned_OI.dtype} of shape {tuple(pruned_OI.shape)}"
            needed = f"{weight_OI.dtype} of shape {tuple(weight_OI.shape)}"
            raise ValueError(f"weight: {self} made {made}, {needed} is needed")
        if not _finite(pruned_OI):
            raise ValueError(f"weight: {self} made NaN or infinity in {weight_OI.dtype}")
        if surplus := pattern.surplus(pruned_OI):
            raise ValueError(f"weight: {self} left {surplus} weights more than {pattern} allows")

    def _check(self, weight_OI: Tensor, stat: Any, pattern: Pattern) -> None:
        if weight_OI.dim() != 2 or not weight_OI.is_floating_point():
            given = f"{weight_OI.dtype} of shape {tuple(weight_OI.shape)}"
            raise ValueError(f"weight: {given} given, a matrix of floats is needed")
        if not _finite(weight_OI):
            raise ValueError("weight: NaN or infinity among the weights")
        if not pattern.divides(weight_OI.shape[1]):
            raise ValueError(f"pattern: {pattern} does not divide {weight_OI.shape[1]} inputs")
        if self.observes is None:
            return
        if not isinstance(stat, self.observes):
            raise ValueError(f"stat: {type(stat).__name__} given, {type(self).__name__} needs {self.observes.__name__}")
        if stat.in_features != weight_OI.shape[1]:
            raise ValueError(f"stat: it saw {stat.in_features} inputs, the weight has {weight_OI.shape[1]}")


@dataclass(frozen=True, kw_only=True)
class ScorePruner(Pruner):
    """A method that is a score: the pattern keeps the largest, and what is kept is unchanged."""

    def _prune(self, weight_OI: Tensor, stat: Any, pattern: Pattern) -> tuple[Tensor, Tensor]:
        score_OI = self.score(weight_OI, stat)
        if score_OI.shape != weight_OI.shape:
            raise ValueError(f"score: shape {tuple(score_OI.shape)} made by {self}, {tuple(weight_OI.shape)} is needed")
        keep_OI = pattern.keep(score_OI)
        return torch.where(keep_OI, weight_OI, 0), keep_OI


def absolute(weight_OI: Tensor) -> Tensor:
    """|W| in float32, or in float64 if W is."""
    return weight_OI.to(torch.promote_types(weight_OI.dtype, torch.float32)).abs()


def check_not_negative(name: str, value: float) -> None:
    """ValueError, naming the hyper-parameter, for a value that is negative, infinite or NaN."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name}: {value} given, valid is 0 or more")


def _finite(weight_OI: Tensor) -> bool:
    return bool(torch.stack(weight_OI.aminmax()).isfinite().all()) if weight_OI.numel() else True
