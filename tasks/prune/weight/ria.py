"""RIA: how much a weight matters among the weights of its input and of its output, times the norm of its input.

Source: Zhang, Bai, Lin, Zhao, Hou, Cannistraci: Plug-and-Play: An Efficient Post-training Pruning Method for Large
Language Models, ICLR 2024, equations 2 and 4.
Axes: O outputs, I inputs of the linear.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tasks.calibrate.observers import InputNorm
from tasks.prune.weight.pruner import ScorePruner, absolute, check_not_negative


@dataclass(frozen=True, kw_only=True)
class RIA(ScorePruner):
    """(|W_ij| / Σ_i |W_ij| + |W_ij| / Σ_j |W_ij|) · ||x_j||^a."""

    a: float = 0.5

    observes: ClassVar[type[InputNorm]] = InputNorm

    def __post_init__(self) -> None:
        check_not_negative("a", self.a)

    def score(self, weight_OI: Tensor, stat: InputNorm) -> Tensor:
        column_OI, row_OI = relative(absolute(weight_OI))
        return (column_OI + row_OI) * stat.norm_I().pow(self.a).to(row_OI.dtype)


def relative(magnitude_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Each magnitude as a share of its column (one input), and of its row (one output). Where all are 0, 0."""
    column_I, row_O1 = magnitude_OI.sum(0), magnitude_OI.sum(1, keepdim=True)
    return magnitude_OI / column_I.masked_fill(column_I == 0, 1), magnitude_OI / row_O1.masked_fill(row_O1 == 0, 1)
