"""Which inputs a linear reads, token by token: the largest by a score, as many as a pattern keeps.

A selection is made of one token alone; what calibration and weights tell is computed once, before. Linears that read
the same input share one selection, so the scores that look at weights look at all of theirs together.

Axes: T tokens, I inputs of the linears, O their outputs, one linear after the other.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from tasks.calibrate.distribution import InputDistribution
from tasks.prune.weight.pattern import Pattern, Unstructured

Facts = Mapping[str, Tensor]  # what was computed once, by name
Needs = Mapping[str, tuple[str, ...]]  # tensors by name, each by its axes: inputs, outputs, a field of the method


class Selection(ABC):
    """A method, a frozen dataclass with its hyper-parameters. `needs`: what it prepares.

    `calibrates`: whether it looks at the calibration tokens for that.
    """

    needs: ClassVar[Needs] = {}
    calibrates: ClassVar[bool] = False

    def check(self, pattern: Pattern) -> None:
        """Raises ValueError for a pattern that this method cannot keep; here for one of a whole matrix."""
        if isinstance(pattern, Unstructured) and pattern.within == "matrix":
            raise ValueError(
                f"pattern: {pattern} given, but inputs are chosen within a token; use {pattern.sparsity:.0%}"
            )

    @abstractmethod
    def prepare(self, weight_OI: Tensor, stat: InputDistribution, pattern: Pattern) -> dict[str, Tensor]:
        """What `keep` will need of the weights and the calibration tokens: float32."""

    @abstractmethod
    def keep(self, x_TI: Tensor, pattern: Pattern, facts: Facts) -> Tensor:
        """bool, (T, I). Each row depends on that token alone."""


class ScoreSelection(Selection):
    """Keeps the inputs of the largest |x_j| · f_j, exactly as many as the pattern says. `factor` gives f."""

    def prepare(self, weight_OI: Tensor, stat: InputDistribution, pattern: Pattern) -> dict[str, Tensor]:
        return {"factor": self.factor(weight_OI.float(), stat).float()} if self.needs else {}

    def keep(self, x_TI: Tensor, pattern: Pattern, facts: Facts) -> Tensor:
        score_TI = x_TI.abs()
        if "factor" in facts:
            score_TI = score_TI.float() * facts["factor"]
        return pattern.select(score_TI.detach())

    def factor(self, weight_OI: Tensor, stat: InputDistribution) -> Tensor:
        """(I,), at least 0, of a method that needs one; of others f is 1."""
        raise NotImplementedError
