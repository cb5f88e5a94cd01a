"""S-PTS: a learned number for each input stands in for it where it is dropped; W · η joins the bias."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tasks.calibrate.distribution import InputDistribution
from tasks.prune.activation.mitigation import Needs, OnInput, Own


@dataclass(frozen=True, kw_only=True)
class StaticShift(OnInput):
    """y = W · prune(x − η) + W · η, η learned, from the mean of each input over the calibration tokens."""

    needs: ClassVar[Needs] = {"eta": ("inputs",)}
    calibrates: ClassVar[bool] = True
    learns: ClassVar[bool] = True

    def prepare(self, weight_OI: Tensor, stat: InputDistribution) -> dict[str, Tensor]:
        return {"eta": stat.mean_I().float()}

    def shift(self, x_TI: Tensor, own: Own) -> Tensor:
        return own["eta"].to(x_TI.dtype)
