"""Scaling: inputs are compared after each was divided by s, which evens out how large inputs and weights are.

With s folded into the weights, (W · s)(x / s) is W x: the product is the same and only the choice is another. So
nothing is folded here, and the weights stay as they are: the scores alone are divided.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tasks.calibrate.distribution import InputDistribution
from tasks.prune.activation.mitigation import Needs, OnInput, Own


@dataclass(frozen=True, kw_only=True)
class Scaling(OnInput):
    """s_j = √(max |x_j| / max_i |W_ij|), both maxima from calibration. An input that was always 0 keeps s = 1."""

    needs: ClassVar[Needs] = {"inverse": ("inputs",)}
    calibrates: ClassVar[bool] = True

    def prepare(self, weight_OI: Tensor, stat: InputDistribution) -> dict[str, Tensor]:
        peak_I, weight_I = stat.peak_I(), weight_OI.float().abs().amax(0)
        alive_I = (peak_I > 0) & (weight_I > 0)
        scale_I = (peak_I / weight_I.clamp(min=1e-30)).sqrt()
        return {"inverse": scale_I.where(alive_I, 1).reciprocal()}

    def rescore(self, own: Own) -> Tensor:
        return own["inverse"]
