"""What every pruner does, apart from its formula: checks, precision, and the way from scores to a pruned matrix.

Axes: O outputs, I inputs of the linear.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from traceback import extract_tb
from typing import Any, ClassVar

import torch
from torch import Tensor

from tasks.calibrate.observers import Observer
from tasks.prune.weight.pattern import Pattern

Make = Callable[[Tensor, Any, Pattern], tuple[Tensor, Tensor]]  # of a weight, a stat and a pattern


@dataclass(frozen=True, kw_only=True)
class Pruner(ABC):
    """A method with its hyper-parameters. `observes` is the observer that it needs of the inputs, or None."""

    observes: ClassVar[type[Observer] | None] = None

    def prune(self, weight_OI: Tensor, stat: Any, pattern: Pattern) -> Tensor:
        """The pruned matrix, a new tensor of the same dtype and device; `stat` is an instance of `observes`, or None.

        Raises ValueError for a weight that is not a matrix of finite floats, a `stat` of another kind or width, and a
        pattern that does not divide the inputs.
        """
        return self._checked(self._prune, weight_OI, stat, pattern)[0]

    def prune_and_keep(self, weight_OI: Tensor, stat: Any, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """As `prune`, and beside it which weights stay: bool (O, I). A weight that stays may be 0 by itself.

        A method with a `prune` of its own is asked by that, and what it does not make 0 stays.
        """
        make = self._prune if type(self).prune is Pruner.prune else self._prune_its_own_way
        return self._checked(make, weight_OI, stat, pattern)

    def checked_score(self, weight_OI: Tensor, stat: Any) -> Tensor:
        """`score`. Raises ValueError where that is not a finite number for each weight."""
        with self._answering(weight_OI, stat):
            score_OI = self.score(weight_OI, stat)
        if not isinstance(score_OI, Tensor) or score_OI.shape != weight_OI.shape:
            needed = f"a tensor of shape {tuple(weight_OI.shape)}"
            raise ValueError(f"score: {_described(score_OI)} made by {self}, {needed} is needed")
        if not _finite(score_OI):
            raise ValueError(f"score: NaN or infinity made by {self}")
        return score_OI.detach()

    def check_pruned(self, pruned_OI: Tensor, weight_OI: Tensor, pattern: Pattern) -> None:
        """Of what came of `weight_OI` by this keep. ValueError for another shape or dtype, NaN, and too few zeros."""
        if _described(pruned_OI) != _described(weight_OI):
            raise ValueError(f"weight: {self} made {_described(pruned_OI)}, {_described(weight_OI)} is needed")
        if not _finite(pruned_OI):
            raise ValueError(f"weight: {self} made NaN or infinity in {weight_OI.dtype}")
        if surplus := self.surplus(pruned_OI, pattern):
            raise ValueError(f"weight: {self} left {surplus} weights more than {pattern} allows")

    def surplus(self, pruned_OI: Tensor, pattern: Pattern) -> int:
        """How many weights are there that `pattern` does not allow, in the groups that this method compares."""
        return pattern.surplus(pruned_OI)

    @property
    def damping(self) -> float | None:
        """The share of mean(diag G) that it adds to the diagonal of a Gram G; None where it reads none."""
        return None

    @abstractmethod
    def score(self, weight_OI: Tensor, stat: Any) -> Tensor:
        """How much each weight matters before any other has gone, (O, I), in float32 or better."""

    @abstractmethod
    def _prune(self, weight_OI: Tensor, stat: Any, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """`prune_and_keep` on checked arguments."""

    def _prune_its_own_way(self, weight_OI: Tensor, stat: Any, pattern: Pattern) -> tuple[Tensor, Tensor]:
        pruned_OI = self.prune(weight_OI, stat, pattern)
        return pruned_OI, pruned_OI != 0

    def _checked(self, make: Make, weight_OI: Tensor, stat: Any, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """What `make` gives for these arguments; both are checked."""
        self._check(weight_OI, stat, pattern)
        with torch.no_grad(), self._answering(weight_OI, stat):
            made = make(weight_OI.detach(), stat, pattern)
        if not isinstance(made, tuple) or len(made) != 2:
            raise ValueError(f"keep: {self} made {_described(made)} alone, the pruned weight and its keep are needed")
        pruned_OI, keep_OI = made
        self.check_pruned(pruned_OI, weight_OI, pattern)
        self._check_keep(keep_OI, pruned_OI)
        return pruned_OI, keep_OI

    @contextmanager
    def _answering(self, weight_OI: Tensor, stat: Any) -> Iterator[None]:
        """Within, the method's own code runs: ValueError for what it raises, and for a weight or stat changed in place.

        Memory that runs out is no mistake of the method.
        """
        version = weight_OI._version
        sums = stat.sums() if isinstance(stat, Observer) else []
        versions = [each._version for each in sums]
        try:
            yield
        except (ValueError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(f"pruner: {self} failed at {_place(error, type(self))}: {cause}") from error
        if weight_OI._version != version:
            raise ValueError(f"weight: {self} changed it in place; give back a new tensor, such as weight_OI.abs()")
        if [each._version for each in sums] != versions:
            raise ValueError(f"stat: {self} changed it in place, but other linears read it too; take a copy")

    def _check_keep(self, keep_OI: Tensor, pruned_OI: Tensor) -> None:
        if not isinstance(keep_OI, Tensor) or keep_OI.dtype != torch.bool or keep_OI.shape != pruned_OI.shape:
            needed = f"torch.bool of shape {tuple(pruned_OI.shape)}"
            raise ValueError(f"keep: {self} made {_described(keep_OI)}, {needed} is needed")
        if others := int(((pruned_OI != 0) > keep_OI).sum()):
            raise ValueError(f"keep: {self} made one without {others} of the weights that it left")

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
        keep_OI = pattern.select(self.checked_score(weight_OI, stat))
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


def _described(made: Any) -> str:
    return f"{made.dtype} of shape {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__


def _place(error: Exception, method: type) -> str:
    """File and line where it was raised: the innermost one in the method's own file, if it went through that."""
    frames = extract_tb(error.__traceback__)
    file = getattr(sys.modules.get(method.__module__), "__file__", None)
    innermost = next((frame for frame in reversed(frames) if frame.filename == file), frames[-1])
    return f"{innermost.filename}:{innermost.lineno}"
