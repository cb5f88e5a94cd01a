"""FLAP: how much what a unit hands to its reader fluctuates, as the reader weighs it.

What does not fluctuate can be replaced by a bias, so it matters little however large it is.

Source: An, Zhao, Yu, Tang, Wang: Fluctuation-based Adaptive Structured Pruning for Large Language Models,
arXiv:2312.11983. Their scores are then standardised within each block before blocks are compared, which
here is the business of an allocation.
Axes: U units of one kind in a block, I inputs of a linear.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tasks.calibrate.importance.coupled import Coupled
from tasks.calibrate.importance.moments import InputMoments
from tasks.calibrate.importance.observed import ObservedImportance


@dataclass(frozen=True, kw_only=True)
class FLAP(ObservedImportance):
    """Σ Var(x_j) · ||W_:j||² over the unit's columns j of the reader (o, down); the variance is over all tokens.

    The rows that make the unit count by way of x, and their biases do not: a constant has no variance.
    """

    least_tokens: ClassVar[int] = 2
    observes: ClassVar[type[InputMoments]] = InputMoments

    def of_units(self, coupled: Sequence[Coupled], stats: Mapping[str, InputMoments]) -> Tensor:
        *_, reader = coupled
        weight_OI = reader.values
        return reader.sums(weight_OI.square() * stats[reader.linear].variance_I().to(weight_OI.dtype))
