"""How large what a unit hands to its reader is on average.

Source: Muralidharan et al.: Compact Language Models via Pruning and Knowledge Distillation, arXiv:2407.14679,
on importance from activations alone.
Axes: U units of one kind in a block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tasks.calibrate.importance.coupled import Coupled
from tasks.calibrate.importance.moments import InputMoments
from tasks.calibrate.importance.observed import ObservedImportance


@dataclass(frozen=True, kw_only=True)
class Activation(ObservedImportance):
    """Mean of |x| at the input of the reader (o, down), over all tokens and the unit's columns.

    Of the weights only those count that made x: rows with their biases. What the reader does with x does not.
    """

    observes: ClassVar[type[InputMoments]] = InputMoments

    def of_units(self, coupled: Sequence[Coupled], stats: Mapping[str, InputMoments]) -> Tensor:
        *_, reader = coupled
        return stats[reader.linear].size_I().reshape(reader.count, -1).mean(1)
