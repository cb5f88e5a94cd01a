"""How one weight is stored: as it is, as kept values under a bitmask, or as n values of every m with their positions.

A value is kept unless its bits are those of +0.0, so every packing gives back the same bits, -0.0 and NaN included. A
matrix that keeps none, as the sparse part of a weight with factors may be, takes no bytes.
Axes: O out, I in, G groups of M consecutive inputs, N stored values of a group, K all stored values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tasks.prune.weight.pattern import NM, Pattern, Unstructured

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, kw_only=True)
class Dense:
    """The tensor itself."""

    name: ClassVar[str] = "dense"

    def size_bytes(self, weight: Tensor) -> int:
        return weight.numel() * weight.itemsize

    def pack(self, weight: Tensor) -> dict[str, Tensor]:
        return {"values": weight}

    def unpack(self, parts: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        return parts["values"].view(shape)


@dataclass(frozen=True, kw_only=True)
class Empty:
    """A matrix of zeros: no values, a tensor without elements tells the dtype."""

    name: ClassVar[str] = "empty"

    def size_bytes(self, weight: Tensor) -> int:
        return 0

    def pack(self, weight: Tensor) -> dict[str, Tensor]:
        return {"values": weight.new_empty(0)}

    def unpack(self, parts: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        if parts["values"].numel():
            raise ValueError(f"{parts['values'].numel()} values are stored, a matrix of zeros has none")
        return parts["values"].new_zeros(shape)


@dataclass(frozen=True, kw_only=True)
class Bitmask:
    """One bit for every weight, set where it is kept, and the kept values row by row."""

    name: ClassVar[str] = "bitmask"

    def size_bytes(self, weight_OI: Tensor) -> int:
        return count_kept(weight_OI) * weight_OI.itemsize + packed_length(weight_OI.numel(), 1)

    def pack(self, weight_OI: Tensor) -> dict[str, Tensor]:
        kept = is_kept(weight_OI).flatten()
        values_K = weight_OI.flatten().index_select(0, kept.nonzero().view(-1))
        return {"values": values_K, "mask": pack_numbers(kept.to(torch.uint8), 1)}

    def unpack(self, parts: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        weight_OI = parts["values"].new_zeros(shape)
        kept = unpack_numbers(parts["mask"], weight_OI.numel(), 1).bool()
        if kept.count_nonzero() != len(parts["values"]):
            raise ValueError(f"the mask keeps {kept.count_nonzero()} values, {len(parts['values'])} are stored")
        as_integers(weight_OI).masked_scatter_(kept.view(shape), as_integers(parts["values"]))
        return weight_OI


@dataclass(frozen=True, kw_only=True)
class Positions:
    """`n` values of every `m` (up to 16) consecutive inputs, row by row, and the position of each in its group.

    2:4 takes 2 bits a position: 0.5625 of a 16-bit matrix. A group with fewer than `n` kept values fills up with its
    first zeros, so that positions always rise within a group.
    """

    name: ClassVar[str] = "nm"
    n: int
    m: int

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.m <= 16:
            raise ValueError(f"n:m: {self.n}:{self.m} given, positions are stored for 1 <= n <= m <= 16")

    @property
    def bits(self) -> int:
        """Of one position: 1, 2 or 4, so that none crosses a byte."""
        return next(bits for bits in (1, 2, 4) if self.m <= 2**bits)

    def pay(self) -> bool:
        """Whether the positions of a group take no more than a mask of it: 1:4, 2:4, 2:8, 4:16, not 3:4, 4:8."""
        return self.n * self.bits <= self.m

    def fits(self, weight_OI: Tensor) -> bool:
        """Whether every group holds at most `n` kept values."""
        if weight_OI.shape[1] % self.m:
            return False
        return bool((is_kept(weight_OI).view(-1, self.m).sum(1, dtype=torch.uint8) <= self.n).all())

    def size_bytes(self, weight_OI: Tensor) -> int:
        stored = weight_OI.numel() // self.m * self.n
        return stored * weight_OI.itemsize + packed_length(stored, self.bits)

    def pack(self, weight_OI: Tensor) -> dict[str, Tensor]:
        stored_GM = is_kept(weight_OI).view(-1, self.m)
        spare_G = self.n - stored_GM.sum(1, dtype=torch.uint8)
        if spare_G.any():
            stored_GM = stored_GM | (~stored_GM & ((~stored_GM).cumsum(1, dtype=torch.uint8) <= spare_G[:, None]))
        place_K = stored_GM.flatten().nonzero().view(-1)
        position_K = torch.arange(self.m, dtype=torch.uint8).repeat(len(stored_GM)).index_select(0, place_K)
        return {
            "values": weight_OI.flatten().index_select(0, place_K),
            "positions": pack_numbers(position_K, self.bits),
        }

    def unpack(self, parts: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        weight_OI = parts["values"].new_zeros(shape)
        groups = weight_OI.numel() // self.m
        if len(parts["values"]) != groups * self.n:
            raise ValueError(f"{len(parts['values'])} values are stored, {groups} groups need {groups * self.n}")
        position_GN = unpack_numbers(parts["positions"], groups * self.n, self.bits).view(groups, self.n)
        if (position_GN >= self.m).any() or (position_GN[:, 1:] <= position_GN[:, :-1]).any():
            raise ValueError(f"the positions of a group do not rise within 0 to {self.m - 1}")
        values_GN = as_integers(parts["values"]).view(groups, self.n)
        as_integers(weight_OI).view(groups, self.m).scatter_(1, position_GN.long(), values_GN)
        return weight_OI


Packing = Dense | Empty | Bitmask | Positions
PACKINGS: dict[str, type[Packing]] = {packing.name: packing for packing in (Dense, Empty, Bitmask, Positions)}


def choose_packing(weight: Tensor, pattern: Pattern | None = None) -> Packing:
    """The smallest packing of `weight`; `Positions` also where a mask takes as much, since kernels read n:m.

    Raises ValueError for a matrix with the zeros of an n:m `pattern` in places that are not n:m.
    """
    if weight.dim() != 2 or not weight.is_floating_point() or weight.itemsize < 2:
        return Dense()
    if isinstance(pattern, NM):
        _refuse_near_miss(weight, pattern)
    if not count_kept(weight):
        return Empty()
    if isinstance(pattern, NM) and pattern.m <= 16:
        positions = Positions(n=pattern.n, m=pattern.m)
        if positions.pay() and positions.fits(weight):
            return positions
    return Bitmask() if Bitmask().size_bytes(weight) < Dense().size_bytes(weight) else Dense()


def pattern_bytes(pattern: NM | Unstructured, outputs: int, inputs: int, itemsize: int = 2) -> int:
    """What a matrix pruned to `pattern` takes in the packing that `choose_packing` finds, 2:4 in 16 bits 0.5625 of it.

    `itemsize`: bytes of a weight. A kept weight that is 0 by itself may take less.
    """
    weights = outputs * inputs
    if isinstance(pattern, NM):
        kept = weights // pattern.m * pattern.n
        if pattern.m <= 16 and (positions := Positions(n=pattern.n, m=pattern.m)).pay():
            return kept * itemsize + packed_length(kept, positions.bits)
    else:
        groups = outputs if pattern.within == "row" else 1
        kept = weights - groups * int(weights // groups * pattern.sparsity)
    return min(kept * itemsize + packed_length(weights, 1), weights * itemsize)


def is_kept(weight: Tensor) -> Tensor:
    """False where a weight is +0.0 to the bit; -0.0 counts as kept, for it must come back as -0.0."""
    return as_integers(weight) != 0


def count_kept(weight: Tensor) -> int:
    """As `is_kept` counts, without a matrix of flags."""
    return int(as_integers(weight).count_nonzero())


def as_integers(weight: Tensor) -> Tensor:
    """The same memory, read as whole numbers of the same width."""
    return weight.view(INTEGERS[weight.itemsize])


def packed_length(count: int, bits: int) -> int:
    """Bytes that `count` numbers of `bits` bits take."""
    return -(-count * bits // 8)


def pack_numbers(numbers: Tensor, bits: int) -> Tensor:
    """uint8 numbers below 2**bits to bytes, the first in the lowest bits, the last byte padded; `bits` divides 8."""
    to_a_byte = 8 // bits
    columns = torch.nn.functional.pad(numbers, (0, -len(numbers) % to_a_byte)).view(-1, to_a_byte)
    packed = columns[:, 0].clone()
    for column in range(1, to_a_byte):
        packed |= columns[:, column] << bits * column
    return packed


def unpack_numbers(packed: Tensor, count: int, bits: int) -> Tensor:
    """The first `count` numbers of `packed`. Raises ValueError where it has not the length that these take."""
    length = packed_length(count, bits)
    if packed.dtype != torch.uint8 or packed.shape != (length,):
        raise ValueError(f"{packed.dtype} of shape {tuple(packed.shape)} is stored, {length} bytes are needed")
    of_a_byte = torch.arange(256)[:, None] >> bits * torch.arange(8 // bits) & 2**bits - 1
    return of_a_byte.to(torch.uint8).index_select(0, packed.int()).view(-1)[:count]


def _refuse_near_miss(weight_OI: Tensor, pattern: NM) -> None:
    """A matrix with as many zeros as n:m has was meant to be n:m. By value, as -0.0 prunes as well as 0.0 does."""
    n, m = pattern.n, pattern.m
    if int(weight_OI.count_nonzero()) * m > weight_OI.numel() * n:
        return
    if not pattern.divides(weight_OI.shape[1]):
        raise ValueError(f"pattern: {pattern} does not divide {weight_OI.shape[1]} inputs")
    fullest, group = (weight_OI != 0).view(-1, m).sum(1, dtype=torch.int16).max(0)
    if fullest > n:
        row, column = divmod(int(group) * m, weight_OI.shape[1])
        raise ValueError(f"pattern: {pattern} given, {int(fullest)} of {m} kept at row {row}, input {column}")
