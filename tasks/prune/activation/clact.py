"""CLACT: a magnitude counts by how large that input usually is.

The score is |x_j| · ‖X_:j‖ / ‖x‖, with the norm of column j over the calibration tokens (never over the batch at hand,
which would make a token depend on its neighbours). ‖x‖ is one number for a token, so it orders nothing and is left out.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tasks.calibrate.distribution import InputDistribution
from tasks.prune.activation.selection import Needs, ScoreSelection


@dataclass(frozen=True, kw_only=True)
class CLACT(ScoreSelection):
    """f_j = ‖X_:j‖ over the calibration tokens."""

    needs: ClassVar[Needs] = {"factor": ("inputs",)}
    calibrates: ClassVar[bool] = True

    def factor(self, weight_OI: Tensor, stat: InputDistribution) -> Tensor:
        return stat.norm_I()
