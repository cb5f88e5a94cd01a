"""How much of each block goes: the type, and the projection onto a budget in whole units.

The units are whatever is dropped whole: weights, one weight of each row, head groups, channels. Nothing here knows.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

SUMS = 1 << 27  # bits that remember which sums can be reached: 16 MiB
WHOLE = 1e-6  # what a number of units may be off a whole number by, having been a share in floating point


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """The share of the weights in its linears that each block is to drop, from 0 to below 1, in the order they run.

    `ffn`: the shares of the FFNs, where these are apart; `sparsities` are then those of the attentions alone.
    """

    sparsities: tuple[float, ...]
    ffn: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for shares in (self.sparsities, self.ffn or ()):
            for block, sparsity in enumerate(shares):
                if not 0 <= sparsity < 1:
                    raise ValueError(f"allocation: {sparsity} given for block {block}, valid is 0 <= sparsity < 1")
        if self.ffn is not None and len(self.ffn) != len(self.sparsities):
            given = f"{len(self.sparsities)} attentions and {len(self.ffn)} FFNs"
            raise ValueError(f"allocation: {given} given, valid is one of each for every block")


def project(
    shares: Sequence[float | Fraction],
    sizes: Sequence[int],
    budget: int,
    *,
    bounds: Sequence[tuple[int, int]] | None = None,
    costs: Sequence[int] | None = None,
) -> list[int]:
    """Whole units of every item that spend `budget`, as near as can be to `shares[i] * sizes[i]`.

    Item i has `sizes[i]` units (weights, channels, head groups) that cost `costs[i]` each, 1 by default; between
    `bounds[i]`, from none to all by default, may be taken. All shares are moved by one constant and clipped to the
    bounds so that real numbers of units would cost `budget`; each is then rounded up or down, those of the largest
    remainder up, of equal ones the first, yet so that the budget is spent if it can be. With equal costs that divide it
    it always is; else what is left is less than the dearest unit. A result is its own projection. All in rational
    numbers, so that nothing is lost on the way.

    Raises ValueError for a share that is not finite, and for bounds that are not within the sizes or do not allow the
    budget: it says what they allow.
    """
    costs = costs or [1] * len(sizes)
    bounds = bounds or [(0, size) for size in sizes]
    for index, (size, (low, high)) in enumerate(zip(sizes, bounds, strict=True)):
        if not (size >= 1 and 0 <= low <= high <= size):
            raise ValueError(f"bounds: {low} to {high} given for item {index}, valid is within 0 to its {size} units")
        if not math.isfinite(shares[index]):
            raise ValueError(f"shares: {shares[index]} given for item {index}, valid is a finite number")
    least = sum(cost * low for cost, (low, _) in zip(costs, bounds, strict=True))
    most = sum(cost * high for cost, (_, high) in zip(costs, bounds, strict=True))
    if not least <= budget <= most:
        raise ValueError(f"budget: {budget} given, the bounds allow {least} to {most}")
    wanted = [Fraction(share) * size for share, size in zip(shares, sizes, strict=True)]
    if _meets(wanted, budget, bounds, costs):
        return [round(units) for units in wanted]
    real = shift(wanted, sizes, budget, bounds, costs)
    units = [math.floor(each) for each in real]
    remainders = [each - floor for each, floor in zip(real, units, strict=True)]
    rest = budget - sum(cost * floor for cost, floor in zip(costs, units, strict=True))
    for index in _rounded_up(remainders, costs, rest):
        units[index] += 1
    return units


def shift(
    wanted: Sequence[Fraction],
    sizes: Sequence[int],
    budget: int | Fraction,
    bounds: Sequence[tuple[int | Fraction, int | Fraction]],
    costs: Sequence[int],
) -> list[Fraction]:
    """clip(wanted[i] + c * sizes[i], *bounds[i]) with the c that makes them cost `budget`, which the bounds allow.

    The cost rises with c in straight lines between the corners where an item reaches a bound: exact, no iteration.
    """

    def at(c: Fraction) -> list[Fraction]:
        moved = [units + c * size for units, size in zip(wanted, sizes, strict=True)]
        return [Fraction(min(max(units, low), high)) for units, (low, high) in zip(moved, bounds, strict=True)]

    def spent(c: Fraction) -> Fraction:
        return sum((cost * units for cost, units in zip(costs, at(c), strict=True)), Fraction())

    items = zip(wanted, sizes, bounds, strict=True)
    corners = sorted({(Fraction(bound) - units) / size for units, size, pair in items for bound in pair})
    above = bisect_left(corners, budget, key=spent)
    if above == 0:
        return at(corners[0])
    left, right = corners[above - 1], corners[above]
    return at(left + (right - left) * (budget - spent(left)) / (spent(right) - spent(left)))


def _meets(wanted: Sequence[Fraction], budget: int, bounds: Sequence[tuple[int, int]], costs: Sequence[int]) -> bool:
    """Whether these are whole units within their bounds that cost the budget, or less by less than the dearest unit."""
    whole = [round(units) for units in wanted]
    if any(abs(units - each) > WHOLE for units, each in zip(wanted, whole, strict=True)):
        return False
    if not all(low <= units <= high for units, (low, high) in zip(whole, bounds, strict=True)):
        return False
    return 0 <= budget - sum(cost * units for cost, units in zip(costs, whole, strict=True)) < max(costs, default=1)


def _rounded_up(remainders: Sequence[Fraction], costs: Sequence[int], rest: int) -> list[int]:
    """The items that get one more unit: those of the largest remainder, yet so that they cost `rest` if that can be.

    A sum of subsets: bit s of `reached[-1 - k]` says whether some of the open items from the k-th on cost s. Open are
    all, or as many as SUMS allows about the point up to which the items of the largest remainders fit.
    """
    unit = math.gcd(*costs)
    costs, rest = [cost // unit for cost in costs], rest // unit
    order = sorted((i for i, remainder in enumerate(remainders) if remainder), key=lambda i: (-remainders[i], i))
    fitting = bisect_right(list(accumulate(costs[index] for index in order)), rest)
    width = math.isqrt(SUMS // max(costs))
    first = max(0, fitting - width // 2)
    taken, still_open = order[:first], order[first : first + width]
    rest -= sum(costs[index] for index in taken)
    reached = [1]
    for index in reversed(still_open):
        reached.append((reached[-1] | reached[-1] << costs[index]) & ((1 << rest + 1) - 1))
    cost = reached.pop().bit_length() - 1
    for index in still_open:
        without = reached.pop()
        if cost >= costs[index] and without >> (cost - costs[index]) & 1:
            taken.append(index)
            cost -= costs[index]
    return taken
