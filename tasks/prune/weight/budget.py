"""An allocation, arrived: the pattern of every linear.

"Exact" means: an allocation drops as many weights as its pattern does where it is laid over every linear alike. In what
unit a pattern can drop sets what can be met: one weight for `50%@matrix`, so the total is always exact; one weight of
each row of a linear for `50%`; one of every m inputs of a block for n:m. Where units differ in cost (linears of other
heights, blocks of other sizes) the rounding is the one that comes nearest to the budget. That is the budget itself for
Llama's and Qwen's shapes, and less than the dearest unit below it for any; it is never exceeded.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from torch import nn

from tasks.prune.allocation import Allocation, project
from tasks.prune.weight.pattern import NM, Pattern, Unstructured

Linears = Mapping[str, nn.Linear]


def patterns_for(allocation: Allocation, pattern: Pattern, blocks: Sequence[Linears]) -> list[dict[str, Pattern]]:
    """The pattern of every linear, by block and name, so that all together drop as many weights as `pattern` would.

    A linear drops its block's share, within one unit. For n:m, all linears of a block keep one n, from 1 to m - 1. An
    allocation that asks for the sparsity of `pattern` everywhere gets `pattern` itself.

    Raises ValueError where the number of blocks differs, the blocks do not average the sparsity of `pattern` within one
    unit, n:m is too coarse for any difference between them, or `pattern` is of a kind that has no units here.
    """
    if len(allocation.sparsities) != len(blocks):
        raise ValueError(f"allocation: {len(allocation.sparsities)} blocks given, the model has {len(blocks)}")
    if all(sparsity == pattern.sparsity for sparsity in allocation.sparsities):
        return [dict.fromkeys(linears, pattern) for linears in blocks]
    if isinstance(pattern, NM):
        return _nm_patterns(allocation, pattern, blocks)
    if isinstance(pattern, Unstructured):
        return _unstructured_patterns(allocation, pattern, blocks)
    raise ValueError(f"pattern: {pattern} given, an allocation needs n:m or a percentage")


def exact_sparsity(dropped: int, size: int) -> float:
    """The sparsity of which int(size * sparsity) is `dropped`: dropped / size, up to the last bits of the float."""
    sparsity = dropped / size
    while int(size * sparsity) < dropped:
        sparsity = math.nextafter(sparsity, 1)
    return sparsity


def _unstructured_patterns(
    allocation: Allocation, pattern: Unstructured, blocks: Sequence[Linears]
) -> list[dict[str, Pattern]]:
    """The items are the linears. A unit is one weight, or one of each row."""
    shares = [share for share, linears in zip(allocation.sparsities, blocks, strict=True) for _ in linears]
    every = [linear for linears in blocks for linear in linears.values()]
    by_row = pattern.within == "row"
    sizes = [linear.in_features if by_row else linear.weight.numel() for linear in every]
    costs = [linear.out_features if by_row else 1 for linear in every]
    budget = sum(cost * int(size * pattern.sparsity) for size, cost in zip(sizes, costs, strict=True))
    _check_mean(shares, sizes, costs, pattern)
    dropped = project(shares, sizes, budget, bounds=[(0, size - 1) for size in sizes], costs=costs)
    patterns = (Unstructured(exact_sparsity(*units), pattern.within) for units in zip(dropped, sizes, strict=True))
    return [{name: next(patterns) for name in linears} for linears in blocks]


def _nm_patterns(allocation: Allocation, pattern: NM, blocks: Sequence[Linears]) -> list[dict[str, Pattern]]:
    """The items are the blocks. A unit is one of every m inputs in all linears of the block."""
    n, m, shares = pattern.n, pattern.m, allocation.sparsities
    sizes = [m] * len(blocks)
    costs = [sum(linear.weight.numel() for linear in linears.values()) // m for linears in blocks]
    _check_mean(shares, sizes, costs, pattern)
    dropped = project(shares, sizes, sum(costs) * (m - n), bounds=[(1, m - 1)] * len(blocks), costs=costs)
    if set(dropped) == {m - n}:
        raise ValueError(f"allocation: its blocks differ by too little for {pattern}, of which a step is {1 / m:g}")
    return [dict.fromkeys(linears, NM(m - units, m)) for units, linears in zip(dropped, blocks, strict=True)]


def _check_mean(shares: Sequence[float], sizes: Sequence[int], costs: Sequence[int], pattern: Pattern) -> None:
    """A run must not drop another share than its pattern says."""
    weights = [size * cost for size, cost in zip(sizes, costs, strict=True)]
    mean = float(sum(Fraction(share) * each for share, each in zip(shares, weights, strict=True)) / sum(weights))
    unit = max(costs) / sum(weights)
    if abs(mean - pattern.sparsity) > unit:
        raise ValueError(
            f"allocation: its blocks drop {mean:.6g} of all weights, {pattern} drops {pattern.sparsity:.6g}; "
            f"valid is a difference of at most one unit, {unit:.1g}"
        )
