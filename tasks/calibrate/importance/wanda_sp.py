"""Wanda for structures: weights times the norms of their inputs, summed over all weights of a unit.

Source: An, Zhao, Yu, Tang, Wang: Fluctuation-based Adaptive Structured Pruning for Large Language Models,
arXiv:2312.11983 (the baseline Wanda-sp), after Sun et al., arXiv:2306.11695. Their program takes the columns of the
reader alone; here the rows that make the unit count too.
Axes: U units of one kind in a block, I inputs of a linear.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tasks.calibrate.importance.coupled import Coupled
from tasks.calibrate.importance.observed import ObservedImportance
from tasks.calibrate.observers import InputNorm


@dataclass(frozen=True, kw_only=True)
class WandaSp(ObservedImportance):
    """Σ |W_ij| · ||x_j|| over the rows and columns of the unit. A bias has the input 1, of norm √tokens."""

    observes: ClassVar[type[InputNorm]] = InputNorm

    def of_units(self, coupled: Sequence[Coupled], stats: Mapping[str, InputNorm]) -> Tensor:
        return sum((each.sums(each.values.abs() * _norm(each, stats)) for each in coupled), torch.zeros(()))


def _norm(weights: Coupled, stats: Mapping[str, InputNorm]) -> Tensor | float:
    stat = stats[weights.linear]
    return math.sqrt(stat.count) if weights.is_bias else stat.norm_I().to(weights.values.dtype)
