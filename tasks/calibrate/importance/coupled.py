"""The weights that a unit consists of, and sums over them.

They are its rows in the linears that make it, with their biases, and its columns in the linear that reads it. The
biases of the reader and the norms of q and k serve all units alike and belong to none.

Axes: U units of one kind in a block, O outputs, I inputs of a linear.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tasks.model.units import Units


@dataclass(frozen=True, kw_only=True)
class Coupled:
    """A parameter of a linear, of which each of `count` units has as many consecutive rows (axis 0) or columns (1)."""

    linear: str  # its name in the block
    parameter: Tensor
    axis: int
    count: int

    @property
    def is_bias(self) -> bool:
        return self.parameter.dim() == 1

    @property
    def values(self) -> Tensor:
        """The weights or biases, in float32, or in float64 if they are."""
        return precise(self.parameter.detach())

    def sums(self, entries: Tensor) -> Tensor:
        """For each unit the sum of its entries, (U,) in float64. `entries` has the shape of the parameter."""
        by_unit = entries.unflatten(self.axis, (self.count, -1))
        others = [axis for axis in range(by_unit.dim()) if axis != self.axis]
        return by_unit.sum(others, dtype=torch.float64)


def coupled_of(units: Units, linears: Mapping[str, nn.Linear]) -> list[Coupled]:
    """All that units of this kind consist of, the columns of the reader last. `linears`: of the block, by name."""
    rows = [
        Coupled(linear=name, parameter=parameter, axis=0, count=units.count)
        for name in units.rows_each
        for parameter in (linears[name].weight, linears[name].bias)
        if parameter is not None
    ]
    columns = Coupled(linear=units.reader, parameter=linears[units.reader].weight, axis=1, count=units.count)
    return [*rows, columns]


def precise(tensor: Tensor) -> Tensor:
    """In float32, or in float64 if it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
