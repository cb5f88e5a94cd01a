"""D-PTS: a token's own centre stands in for the inputs that it drops."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tasks.prune.activation.mitigation import OnInput, Own


@dataclass(frozen=True, kw_only=True)
class DynamicShift(OnInput):
    """y = W · prune(x − η) + η · (W · 1), η the mean or the median of the token."""

    centre: Literal["mean", "median"] = "mean"

    def __post_init__(self) -> None:
        if self.centre not in ("mean", "median"):
            raise ValueError(f"centre: {self.centre!r} given, valid is mean or median")

    def shift(self, x_TI: Tensor, own: Own) -> Tensor:
        if self.centre == "mean":
            return x_TI.mean(dim=-1, keepdim=True)
        return x_TI.median(dim=-1, keepdim=True).values
