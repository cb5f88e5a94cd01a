"""What makes up for inputs that a linear does not read.

Some work on the input, which several linears share, some on the output of one linear. Several can be combined: all of
the first kind see the same token, those of the second kind follow each other in the order they are given. Each is a
frozen dataclass; what it computes once or learns are tensors by name, its own.

Axes: T tokens, I inputs, O outputs (of all linears that share the input, or of the one).
"""

from abc import ABC
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from tasks.calibrate.distribution import InputDistribution
from tasks.prune.activation.selection import Needs

Own = Mapping[str, Tensor]


class Mitigation(ABC):  # noqa: B024 - what a method does not change, it leaves out
    """`needs`: its tensors. `learns`: they are trained (tasks.prune.activation.learn).

    `calibrates`: whether it looks at the calibration tokens for them, before any training.
    """

    needs: ClassVar[Needs] = {}
    calibrates: ClassVar[bool] = False
    learns: ClassVar[bool] = False

    def check(self, outputs: int, inputs: int) -> None:  # noqa: B027 - most serve any
        """Raises ValueError for a linear of this shape that it cannot serve."""

    def prepare(self, weight_OI: Tensor, stat: InputDistribution) -> dict[str, Tensor]:
        """Its tensors, float32, from the weights and the calibration tokens."""
        return {}


class OnInput(Mitigation):
    """Changes what is chosen, or what the linears read in the place of the token."""

    def rescore(self, own: Own) -> Tensor | None:
        """(I,): what the magnitudes are multiplied by before anything is chosen."""
        return None

    def shift(self, x_TI: Tensor, own: Own) -> Tensor | None:
        """What is subtracted before the choice and stands in for what is dropped: (T, 1) or (I,)."""
        return None

    def stretch(self, x_TI: Tensor, kept_TI: Tensor) -> Tensor | None:
        """(T, 1): what the kept inputs are multiplied by. `kept_TI` is zero where an input was dropped."""
        return None


class OnOutput(Mitigation):
    """Changes the output of a linear, before its bias is added."""

    def correct(self, y_TO: Tensor, dropped_TI: Tensor, own: Own) -> Tensor:
        """`dropped_TI`: the token less what the linear has read instead."""
        raise NotImplementedError
