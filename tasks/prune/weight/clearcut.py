"""ClearCut: RIA with a term for weights that matter both to their input and to their output.

Source: the formula of the ClearCut project; RIA is Zhang et al., ICLR 2024.
Axes: O outputs, I inputs of the linear.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tasks.calibrate.observers import InputNorm
from tasks.prune.weight.pruner import ScorePruner, absolute, check_not_negative
from tasks.prune.weight.ria import relative


@dataclass(frozen=True, kw_only=True)
class ClearCut(ScorePruner):
    """(c + r + alpha · c · r) · ||x_j||^a, where c = |W_ij| / Σ_i |W_ij| and r = |W_ij| / Σ_j |W_ij|."""

    a: float = 0.5
    alpha: float = 0.1

    observes: ClassVar[type[InputNorm]] = InputNorm

    def __post_init__(self) -> None:
        check_not_negative("a", self.a)
        check_not_negative("alpha", self.alpha)

    def score(self, weight_OI: Tensor, stat: InputNorm) -> Tensor:
        column_OI, row_OI = relative(absolute(weight_OI))
        both_OI = column_OI + row_OI + self.alpha * column_OI * row_OI
        return both_OI * stat.norm_I().pow(self.a).to(both_OI.dtype)
