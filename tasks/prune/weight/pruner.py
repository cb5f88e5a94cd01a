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
        self._check(weight_OI, stat, pattern)
        with torch.no_grad():
            pruned_OI = self._prune(weight_OI.detach(), stat, pattern)
        if not _finite(pruned_OI):
            raise ValueError(f"weight: {self} made NaN or infinity in {weight_OI.dtype}")
        return pruned_OI

    @abstractmethod
    def _prune(self, weight_OI: Tensor, stat: Any, pattern: Pattern) -> Tensor:
        """`prune` on checked arguments."""

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

    @abstractmethod
    def score(self, weight_OI: Tensor, stat: Any) -> Tensor:
        """How much each weight matters, in float32 or better."""

    def _prune(self, weight_OI: Tensor, stat: Any, pattern: Pattern) -> Tensor:
        return torch.where(pattern.keep(self.score(weight_OI, stat)), weight_OI, 0)


def absolute(weight_OI: Tensor) -> Tensor:
    """|W| in float32, or in float64 if W is."""
    return weight_OI.to(torch.promote_types(weight_OI.dtype, torch.float32)).abs()


def check_not_negative(name: str, value: float) -> None:
    """ValueError, naming the hyper-parameter, for a value that is negative, infinite or NaN."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name}: {value} given, valid is 0 or more")


def _finite(weight_OI: Tensor) -> bool:
    return bool(torch.stack(weight_OI.aminmax()).isfinite().all()) if weight_OI.numel() else True
