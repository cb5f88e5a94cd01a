"""L-PTS: a learned bias of the output."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tasks.calibrate.distribution import InputDistribution
from tasks.prune.activation.mitigation import Needs, OnOutput, Own


@dataclass(frozen=True, kw_only=True)
class LearnedBias(OnOutput):
    """y + δ, δ learned from 0."""

    needs: ClassVar[Needs] = {"delta": ("outputs",)}
    learns: ClassVar[bool] = True

    def prepare(self, weight_OI: Tensor, stat: InputDistribution) -> dict[str, Tensor]:
        return {"delta": torch.zeros(len(weight_OI), device=weight_OI.device)}

    def correct(self, y_TO: Tensor, dropped_TI: Tensor, own: Own) -> Tensor:
        return y_TO + own["delta"].to(y_TO.dtype)
