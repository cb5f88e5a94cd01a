"""Amber: a magnitude counts by how much weight reads that input."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tasks.calibrate.distribution import InputDistribution
from tasks.prune.activation.selection import Needs, ScoreSelection

QUANTILES = (0.005, 0.995)


@dataclass(frozen=True, kw_only=True)
class Amber(ScoreSelection):
    """f_j = ‖W̃_:j‖, where W̃ is W standardised by what lies inside its 0.5 to 99.5 % quantiles, and clamped to them.

    Outlying weights so neither set the mean and the deviation nor decide a column's norm alone.
    """

    needs: ClassVar[Needs] = {"factor": ("inputs",)}

    def factor(self, weight_OI: Tensor, stat: InputDistribution) -> Tensor:
        low, high = quantiles(weight_OI, *QUANTILES)
        inside = weight_OI[(weight_OI >= low) & (weight_OI <= high)]
        spread = inside.std().clamp(min=1e-12)
        return ((weight_OI.clamp(low, high) - inside.mean()) / spread).norm(dim=0)


def quantiles(values: Tensor, *shares: float) -> list[float]:
    """The elements below which these shares lie, of a tensor of any size (torch.quantile takes 16 M at most)."""
    flat = values.flatten()
    return [flat.kthvalue(1 + round(share * (len(flat) - 1))).values.item() for share in shares]
