"""How the bytes that a pattern leaves are shared out between a sparse part and two factors.

A matrix under a pattern takes what its packing takes (tasks.prune.packing): of 16-bit weights 2:4 leaves 0.5625, and so
does 50 %. `share_out` gives a share of these bytes to the factors and thins the pattern out until both fit;
`budget_rank` gives them all to the factors.

Axes: O outputs, I inputs of the linear.
"""

from dataclasses import dataclass

from tasks.prune.packing import packed_length, pattern_bytes
from tasks.prune.weight.pattern import NM, Pattern, Unstructured

ROUNDED_TOGETHER = 128  # inputs: SparseGPT rounds a percentage once a block, and may keep one weight more in each


@dataclass(frozen=True, kw_only=True)
class Split:
    """The pattern of the sparse part and the rank of the factors; together they take no more than `budget_bytes`."""

    pattern: Pattern
    rank: int
    budget_bytes: int


def share_out(pattern: Pattern, share: float, outputs: int, inputs: int, itemsize: int = 2) -> Split:
    """Give `share` of what `pattern` leaves of a matrix of `itemsize` bytes a weight to factors, the rest to S.

    A percentage is met as it is given: the factors get the largest rank that the share pays for, and S keeps, under the
    same `within`, as many weights as the rest pays for. Of n:m only n = 1, 2, … can be had, so S becomes the n':m whose
    rest is nearest to the share, and the factors get all of that rest: 4:8 goes with 0.25 to 3:8 and 0.22; 2:4 can only
    go to 1:4, and half of its bytes to the factors.

    Raises ValueError where the pattern leaves as much as the dense matrix, the share does not pay for rank 1 or leaves
    no weight to S, and for n:m with n = 1.
    """
    pattern, budget = _budget(pattern, outputs, inputs, itemsize)
    if isinstance(pattern, NM):
        thinner, rank = _thinner_nm(pattern, share, budget, outputs, inputs, itemsize)
        return Split(pattern=thinner, rank=rank, budget_bytes=budget)
    rank_bytes = (outputs + inputs) * itemsize
    rank = int(share * budget) // rank_bytes
    if rank < 1:
        least = rank_bytes / budget
        raise ValueError(f"share: {share} given, rank 1 of {outputs} x {inputs} needs {least:.4f} of {pattern}")
    sparse = _thinner_percentage(pattern, budget - rank * rank_bytes, outputs, inputs, itemsize)
    return Split(pattern=sparse, rank=rank, budget_bytes=budget)


def budget_rank(pattern: Pattern, outputs: int, inputs: int, itemsize: int = 2) -> int:
    """The largest rank whose factors take no more than what `pattern` leaves of a matrix of `itemsize` bytes a weight.

    Raises ValueError where the pattern leaves as much as the dense matrix, or less than rank 1 takes.
    """
    _, budget = _budget(pattern, outputs, inputs, itemsize)
    rank_bytes = (outputs + inputs) * itemsize
    if budget < rank_bytes:
        raise ValueError(f"pattern: {pattern} leaves {budget} bytes of {outputs} x {inputs}, rank 1 takes {rank_bytes}")
    return budget // rank_bytes


def largest_rank(outputs: int, inputs: int) -> int:
    """The largest r whose factors, r · (O + I) numbers, are fewer than the O · I of the matrix."""
    return (outputs * inputs - 1) // (outputs + inputs)


def check_rank(rank: int, outputs: int, inputs: int) -> None:
    """ValueError for a rank that saves nothing, r >= O · I / (O + I), or is below 1."""
    largest = largest_rank(outputs, inputs)
    if not 1 <= rank <= largest:
        valid = f"valid is 1 to {largest}" if largest else "none does"
        raise ValueError(f"rank: {rank} given, but it must save bytes of {outputs} x {inputs}; {valid}")


def _budget(pattern: Pattern, outputs: int, inputs: int, itemsize: int) -> tuple[NM | Unstructured, int]:
    """The pattern, which is one with a packing, and the bytes that it leaves of the matrix."""
    if not isinstance(pattern, NM | Unstructured):
        raise ValueError(f"pattern: {pattern} given, bytes are shared out for n:m and percentages alone")
    budget = pattern_bytes(pattern, outputs, inputs, itemsize)
    if budget >= outputs * inputs * itemsize:
        raise ValueError(f"pattern: {pattern} saves no bytes of {outputs} x {inputs}, so factors would not either")
    return pattern, budget


def _thinner_nm(pattern: NM, share: float, budget: int, outputs: int, inputs: int, itemsize: int) -> tuple[NM, int]:
    """The n':m that leaves nearest to `share` of the budget, of equally near ones the fullest, and the rank for it."""
    found: list[tuple[float, NM, int]] = []
    for n in range(pattern.n - 1, 0, -1):
        thinner = NM(n, pattern.m)
        rest = budget - pattern_bytes(thinner, outputs, inputs, itemsize)
        rank = rest // ((outputs + inputs) * itemsize)
        if rank >= 1:
            found.append((abs(rest / budget - share), thinner, rank))
    if not found:
        raise ValueError(
            f"pattern: {pattern} given, no n:{pattern.m} below it leaves {outputs} x {inputs} the bytes of rank 1; "
            "use an n of 2 or more, or a percentage"
        )
    _, thinner, rank = min(found, key=lambda each: each[0])
    return thinner, rank


def _thinner_percentage(pattern: Unstructured, rest: int, outputs: int, inputs: int, itemsize: int) -> Unstructured:
    """As many kept weights as a bitmask and their values may take of the `rest` bytes."""
    mask = packed_length(outputs * inputs, 1)
    kept = (rest - mask) // itemsize - -(-inputs // ROUNDED_TOGETHER)
    groups, size = (outputs, inputs) if pattern.within == "row" else (1, outputs * inputs)
    if kept < groups:
        raise ValueError(f"share: the factors leave {rest} bytes of {outputs} x {inputs}, too few for a sparse part")
    return Unstructured(_dropping(size - kept // groups, size), pattern.within)


def _dropping(count: int, size: int) -> float:
    """The least sparsity in millionths of which int(size · sparsity) is not below `count`."""
    millionths = -(-count * 10**6 // size)
    while int(size * (millionths / 10**6)) < count:
        millionths += 1
    return millionths / 10**6
