"""What linears read in the place of a token: chosen once for all that share the input, and only if it is asked for.

A product may apply a threshold where it reads a token; then nothing has to be chosen beforehand.

Axes: T tokens, I inputs, O outputs of all linears that share the input.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True)
class Chosen:
    """`kept_TI` where an input was kept, 0 elsewhere, and `shift` all over: (T, 1), (I,) or None for 0."""

    keep_TI: Tensor
    kept_TI: Tensor
    shift: Tensor | None

    @property
    def read_TI(self) -> Tensor:
        """The whole of what is read."""
        return self.kept_TI if self.shift is None else self.kept_TI + self.shift


@dataclass(frozen=True)
class Read:
    """A token and, when they are first asked for, what is chosen of it and the product of all weights with that."""

    x_TI: Tensor
    choose: Callable[[Tensor], Chosen]
    multiply: Callable[["Read"], Tensor] | None  # None where each linear computes its own product

    @cached_property
    def chosen(self) -> Chosen:
        return self.choose(self.x_TI)

    @cached_property
    def product_TO(self) -> Tensor | None:
        return None if self.multiply is None else self.multiply(self)
