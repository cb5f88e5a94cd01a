"""An allocation, arrived: the pattern of every linear.

"Exact" means: an allocation drops as many weights as its pattern does where it is laid over every linear alike. In what
unit a pattern can drop sets what can be met: one weight for `50%@matrix`, so the total is always exact; one weight of
each row of a linear for `50%`; one of every m inputs of a block for n:m. Where units differ in cost (linears of other
heights, blocks of other sizes) the rounding is the one that comes nearest to the budget. That is the budget itself for
Llama's and Qwen's shapes, and less than the dearest unit below it for any; it is never exceeded. A method that compares
within blocks of columns, as SparseGPT does, rounds down in each of them.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import nn

from tasks.model.anatomy import attention_of, linears_of
from tasks.prune.allocation import Allocation, project
from tasks.prune.weight.pattern import NM, Pattern, Unstructured

Linears = Mapping[str, nn.Linear]


def patterns_for(
    allocation: Allocation,
    pattern: Pattern,
    blocks: Sequence[Linears],
    attention: Sequence[Collection[str]] | None = None,
) -> list[dict[str, Pattern]]:
    """The pattern of every linear, by block and name, so that all together drop as many weights as `pattern` would.

    A linear drops the share of its block or, where the allocation has them apart, of its block's attention or FFN:
    `attention` names the linears of each block's attention then. Shares are met within one unit. For n:m, all linears
    of a block, or of a half of it, keep one n: from 1 to m - 1, or of a half up to m. An allocation that asks for the
    sparsity of `pattern` everywhere gets `pattern` itself.

    Raises ValueError where the number of blocks differs, the parts do not average the sparsity of `pattern` within one
    unit, n:m is too coarse for any difference between them, or `pattern` is of a kind that has no units here.
    """
    if len(allocation.sparsities) != len(blocks):
        raise ValueError(f"allocation: {len(allocation.sparsities)} blocks given, the model has {len(blocks)}")
    if {*allocation.sparsities, *(allocation.ffn or ())} == {pattern.sparsity}:
        return [dict.fromkeys(linears, pattern) for linears in blocks]
    parts = _parts(allocation, blocks, attention)
    if isinstance(pattern, NM):
        patterns = _nm_patterns(parts, pattern, least=1 if allocation.ffn is None else 0)
    elif isinstance(pattern, Unstructured):
        patterns = _unstructured_patterns(parts, pattern)
    else:
        raise ValueError(f"pattern: {pattern} given, an allocation needs n:m or a percentage")
    found: list[dict[str, Pattern]] = [{} for _ in blocks]
    for part, of_part in zip(parts, patterns, strict=True):
        found[part.block] |= of_part
    return [{name: of_block[name] for name in linears} for linears, of_block in zip(blocks, found, strict=True)]


def attention_linears(block: nn.Module) -> frozenset[str]:
    """The names of the linears of a block's attention: of the module that knows the cache. The others are its FFN's."""
    attention = attention_of(block)
    return frozenset(name for name in linears_of(block) if attention and name.startswith(f"{attention}."))


def exact_sparsity(dropped: int, size: int) -> float:
    """The sparsity of which int(size * sparsity) is `dropped`: dropped / size, up to the last bits of the float."""
    sparsity = dropped / size
    while int(size * sparsity) < dropped:
        sparsity = math.nextafter(sparsity, 1)
    return sparsity


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A block, or its attention or its FFN, which is to drop `share` of its weights."""

    block: int
    share: float
    linears: Linears


def _parts(
    allocation: Allocation, blocks: Sequence[Linears], attention: Sequence[Collection[str]] | None
) -> list[_Part]:
    """Those that have linears."""
    if allocation.ffn is None:
        shares = enumerate(zip(allocation.sparsities, blocks, strict=True))
        return [_Part(block=block, share=share, linears=linears) for block, (share, linears) in shares]
    if attention is None:
        raise ValueError("allocation: attention and FFN apart, but nobody says which linears are the attention's")
    halves = []
    for block, (linears, names) in enumerate(zip(blocks, attention, strict=True)):
        for share, is_attention in ((allocation.sparsities[block], True), (allocation.ffn[block], False)):
            own = {name: linear for name, linear in linears.items() if (name in names) == is_attention}
            halves += [_Part(block=block, share=share, linears=own)] if own else []
    for half, own_shares in (("attention", allocation.sparsities), ("FFN", allocation.ffn)):
        meant = (name in names for each, names in zip(blocks, attention, strict=True) for name in each)
        if len({*own_shares}) > 1 and (half == "attention") not in meant:
            raise ValueError(f"allocation: shares of each {half} given, of which no linear is meant; give one a block")
    return halves


def _unstructured_patterns(parts: Sequence[_Part], pattern: Unstructured) -> list[dict[str, Pattern]]:
    """The items are the linears. A unit is one weight, or one of each row."""
    shares = [part.share for part in parts for _ in part.linears]
    every = [linear for part in parts for linear in part.linears.values()]
    by_row = pattern.within == "row"
    sizes = [linear.in_features if by_row else linear.weight.numel() for linear in every]
    costs = [linear.out_features if by_row else 1 for linear in every]
    budget = sum(cost * int(size * pattern.sparsity) for size, cost in zip(sizes, costs, strict=True))
    _check_mean(shares, sizes, costs, pattern)
    dropped = project(shares, sizes, budget, bounds=[(0, size - 1) for size in sizes], costs=costs)
    patterns = (Unstructured(exact_sparsity(*units), pattern.within) for units in zip(dropped, sizes, strict=True))
    return [{name: next(patterns) for name in part.linears} for part in parts]


def _nm_patterns(parts: Sequence[_Part], pattern: NM, least: int) -> list[dict[str, Pattern]]:
    """The items are the parts. A unit is one of every m inputs in all linears of the part; `least` go of each."""
    n, m, shares = pattern.n, pattern.m, [part.share for part in parts]
    sizes = [m] * len(parts)
    costs = [sum(linear.weight.numel() for linear in part.linears.values()) // m for part in parts]
    _check_mean(shares, sizes, costs, pattern)
    dropped = project(shares, sizes, sum(costs) * (m - n), bounds=[(least, m - 1)] * len(parts), costs=costs)
    if set(dropped) == {m - n}:
        raise ValueError(f"allocation: its blocks differ by too little for {pattern}, of which a step is {1 / m:g}")
    return [dict.fromkeys(part.linears, NM(m - units, m)) for units, part in zip(dropped, parts, strict=True)]


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
