"""LS: a learned scale of the output."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tasks.calibrate.distribution import InputDistribution
from tasks.prune.activation.mitigation import Needs, OnOutput, Own


@dataclass(frozen=True, kw_only=True)
class LearnedScale(OnOutput):
    """λ · y, λ learned from 1. The bias is not scaled."""

    needs: ClassVar[Needs] = {"lambda": ("outputs",)}
    learns: ClassVar[bool] = True

    def prepare(self, weight_OI: Tensor, stat: InputDistribution) -> dict[str, Tensor]:
        return {"lambda": torch.ones(len(weight_OI), device=weight_OI.device)}

    def correct(self, y_TO: Tensor, dropped_TI: Tensor, own: Own) -> Tensor:
        return y_TO * own["lambda"].to(y_TO.dtype)
