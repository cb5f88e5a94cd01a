"""The norm of a unit's weights: how much there is of it, whatever the text.

Source: Fang, Ma, Song, Mi, Wang: DepGraph: Towards Any Structural Pruning, arXiv:2301.12900 (norm of a group).
Axes: U units of one kind in a block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tasks.calibrate.importance.coupled import Coupled
from tasks.calibrate.importance.observed import ObservedImportance


@dataclass(frozen=True, kw_only=True)
class WeightNorm(ObservedImportance):
    """√ Σ w² over all weights of the unit: rows with their biases, and columns of the reader. Needs no batches."""

    least_tokens: ClassVar[int] = 0

    def of_units(self, coupled: Sequence[Coupled], stats: Mapping[str, Any]) -> Tensor:
        return sum((each.sums(each.values.square()) for each in coupled), torch.zeros(())).sqrt()
