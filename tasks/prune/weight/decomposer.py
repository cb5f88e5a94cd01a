"""What may stand in for a weight: a sparse part and two factors.

Axes: O outputs, I inputs of the linear.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from tasks.calibrate.observers import Observer
from tasks.prune.factors import SparseLowRank
from tasks.prune.weight.pattern import Pattern
from tasks.prune.weight.pruner import Pruner


class Decomposer(ABC):
    """A way to split a weight. `observes` is what it needs to know of the inputs."""

    observes: ClassVar[type[Observer]]

    @abstractmethod
    def decompose(self, weight_OI: Tensor, stat: Any, pruner: Pruner, pattern: Pattern) -> SparseLowRank:
        """`pruner` makes the sparse part; all of it takes no more bytes than `pattern` alone would."""
