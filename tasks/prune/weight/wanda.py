"""Wanda: weights times the norms of their inputs.

Source: Sun, Liu, Bair, Kolter: A Simple and Effective Pruning Approach for Large Language Models, arXiv:2306.11695.
Axes: O outputs, I inputs of the linear.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tasks.calibrate.observers import InputNorm
from tasks.prune.weight.pruner import ScorePruner, absolute


@dataclass(frozen=True, kw_only=True)
class Wanda(ScorePruner):
    """|W_ij| · ||x_j||, compared within each output (`50%`) or group of inputs (`2:4`)."""

    observes: ClassVar[type[InputNorm]] = InputNorm

    def score(self, weight_OI: Tensor, stat: InputNorm) -> Tensor:
        magnitude_OI = absolute(weight_OI)
        return magnitude_OI.mul_(stat.norm_I().to(magnitude_OI.dtype))
