"""Thresholds, as in TEAL (Liu et al., arXiv:2408.14690): an input is read where |x_j| exceeds a fixed number.

The threshold is the quantile of |x| over the calibration tokens, whatever their distribution. So the asked share is met
on average, not in each token: where a token is large everywhere it keeps more. Where a mitigation subtracts something
before the choice, it is the quantile of what is left, before anything is learned.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tasks.calibrate.distribution import InputDistribution
from tasks.prune.activation.selection import Facts, Needs, Selection
from tasks.prune.weight.pattern import Pattern, Unstructured


@dataclass(frozen=True, kw_only=True)
class Threshold(Selection):
    """x_j · 1[|x_j| > t], t the quantile of |x| at the pattern's sparsity."""

    needs: ClassVar[Needs] = {"threshold": ()}
    calibrates: ClassVar[bool] = True

    def check(self, pattern: Pattern) -> None:
        super().check(pattern)
        if not isinstance(pattern, Unstructured):
            raise ValueError(f"pattern: {pattern} given, a threshold drops a share such as 50%; use nm for n:m")

    def prepare(self, weight_OI: Tensor, stat: InputDistribution, pattern: Pattern) -> dict[str, Tensor]:
        return {"threshold": torch.tensor(stat.quantile(pattern.sparsity), device=weight_OI.device)}

    def keep(self, x_TI: Tensor, pattern: Pattern, facts: Facts) -> Tensor:
        return x_TI.abs() > facts["threshold"]
