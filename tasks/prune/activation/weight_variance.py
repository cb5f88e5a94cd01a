"""Weight variance: a magnitude counts by how differently the outputs read that input."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tasks.calibrate.distribution import InputDistribution
from tasks.prune.activation.selection import Needs, ScoreSelection


@dataclass(frozen=True, kw_only=True)
class WeightVariance(ScoreSelection):
    """f_j = Var(W_:j), unbiased, over the outputs."""

    needs: ClassVar[Needs] = {"factor": ("inputs",)}

    def factor(self, weight_OI: Tensor, stat: InputDistribution) -> Tensor:
        return weight_OI.var(dim=0)
