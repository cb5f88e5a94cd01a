"""Magnitude pruning, the baseline that looks at no data.

Axes: O outputs, I inputs of the linear.
"""

from dataclasses import dataclass

from torch import Tensor

from tasks.prune.weight.pruner import ScorePruner, absolute


@dataclass(frozen=True, kw_only=True)
class Magnitude(ScorePruner):
    """|W|. The classical baseline compares the whole matrix (`50%@matrix`)."""

    def score(self, weight_OI: Tensor, stat: None = None) -> Tensor:
        return absolute(weight_OI)
