"""Which units stay: those of the highest scores in each block, as many as a budget leaves.

What is to go is a share of a block's cost (tasks.prune.structure.budget), or of its units of a kind. It is the same in
every block, or each has its own: an allocation. Heads go whole and FFNs get widths of `round_to`, so a share is met as
nearly as these steps allow, and what is left then is counted by tasks.model.cost.

Axes: U units of one kind in a block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.model.cost import Widths
from tasks.model.units import KINDS, BlockUnits, units_of
from tasks.prune.structure.budget import Meter, measured
from tasks.prune.structure.ladder import Counts, Ladder, divisions, ladders_of, spend
from tasks.prune.structure.width import Kept

Scores = Sequence[Mapping[str, Tensor]] | Mapping[int, Mapping[str, Tensor]]  # of each block, by kind, (U,)
Share = float | Sequence[float]  # 0 to below 1, for all blocks or for each

DIGITS = 1e-4  # the most that may go is shown to so much, and taken as it is shown


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The units that stay, of the kinds that lose some, and the widths that all blocks then have.

    `parameters`: of the whole model then, `parameters_before` now. `removed`: the share of the cost of its blocks that
    goes.
    """

    kept: Kept
    widths: tuple[Widths, ...]
    parameters: int
    parameters_before: int
    removed: float


def choose(
    model: PreTrainedModel,
    scores: Scores,
    budget: Share,
    *,
    cost: str = "parameters",
    kinds: Sequence[str] = ("head_groups", "channels"),
    round_to: int = 64,
) -> Choice:
    """What stays when `budget` of the `cost` of each block goes, in units of these `kinds` that have a part in it.

    Of two kinds each loses the same share, but for the steps: heads are rounded up or down, whichever lets the channels
    come nearer to the budget; where a block has only one of them, that loses it all, and where it has lost both nothing
    goes. One head group, one query head of each group, and one step of channels stay at least.

    Raises ValueError for a cost that is none, for kinds that are not there or cannot be cut together, for scores that
    do not fit the units, and for a budget more than half a step below the least that can go or above the most: it says
    what is valid, and the least steps of all kinds.
    """
    sizes = _sizes(model, cost)
    counts = [spend(wanted, ladders) for wanted, ladders in _wanted(sizes, budget, kinds, round_to)]
    return _choice(sizes, scores, counts)


def choices(
    model: PreTrainedModel,
    scores: Scores,
    budget: Share,
    *,
    cost: str = "parameters",
    kinds: Sequence[str] = ("head_groups", "channels"),
    round_to: int = 64,
    most: int = 8,
) -> list[Choice]:
    """The ways to divide `budget` between two kinds: that of `choose` first, then ways by which more and more heads go.

    In each the same number goes from every block, or from one that cannot lose so many or so few the nearest that it
    can, and channels make up the rest. Where there are more than `most` they are spread evenly over all numbers, with
    the least and the largest. Where steps are so large that by size less or more goes than by other ways, only these
    are given. Of one kind there is one way. Arguments and errors are those of `choose`.
    """
    sizes = _sizes(model, cost)
    wanted = _wanted(sizes, budget, kinds, round_to)
    by_size = [spend(*of_block) for of_block in wanted]
    ways = [divisions(*of_block) for of_block in wanted]
    numbers = _spread(sorted(set().union(*ways)), most - 1)
    others = [[of_block[_nearest(number, of_block)] for of_block in ways] for number in numbers]
    fair = all(counts in of_block.values() for counts, of_block in zip(by_size, ways, strict=True))
    different = [*([by_size] if fair else []), *(other for other in others if other != by_size)]
    return [_choice(sizes, scores, counts) for counts in different]


def choose_units(model: PreTrainedModel, scores: Scores, shares: Mapping[str, Share], *, round_to: int = 64) -> Choice:
    """What stays when of each kind its share of the units of each block goes: {"channels": 0.3} for FFN -30 %.

    Raises as `choose`.
    """
    sizes = _sizes(model, "parameters")
    _check_kinds(list(shares), sizes.units)
    counts: list[Counts] = [{} for _ in sizes.units]
    for kind, given in shares.items():
        for block, (ladders, share) in enumerate(
            zip(sizes.ladders(round_to), _shares(kind, given, len(counts)), strict=True)
        ):
            if kind in ladders:
                whole = ladders[kind].full
                _check_share(kind, share, block, whole, [ladders[kind]], ladders)
                counts[block] = {**counts[block], **spend(share * whole, [ladders[kind]])}
    return _choice(sizes, scores, counts)


def choose_counts(model: PreTrainedModel, scores: Scores, counts: Sequence[Counts], cost: str = "parameters") -> Choice:
    """What stays when of each block so many units of these kinds do. Raises ValueError for another number of blocks."""
    sizes = _sizes(model, cost)
    if len(counts) != len(sizes.units):
        raise ValueError(f"allocator: {len(counts)} blocks given, the model has {len(sizes.units)}")
    return _choice(sizes, scores, counts)


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """What a model has: the meter of a cost, and of each block the widths and the units."""

    meter: Meter
    full: Sequence[Widths]
    units: Sequence[BlockUnits]

    def ladders(self, round_to: int) -> list[dict[str, Ladder]]:
        """Of each block."""
        both = zip(self.full, self.units, strict=True)
        return [ladders_of(self.meter, widths, of_block, round_to) for widths, of_block in both]


def _sizes(model: PreTrainedModel, cost: str) -> _Sizes:
    meter, full = measured(model, cost)
    return _Sizes(meter=meter, full=full, units=units_of(model))


def _wanted(sizes: _Sizes, budget: Share, kinds: Sequence[str], round_to: int) -> list[tuple[float, list[Ladder]]]:
    """For each block how much of its cost is to go, and the ladders that it can go from."""
    _check_kinds(kinds, sizes.units)
    shares, wanted = _shares("budget", budget, len(sizes.units)), []
    for block, (share, widths, ladders) in enumerate(zip(shares, sizes.full, sizes.ladders(round_to), strict=True)):
        chosen = [ladder for kind, ladder in ladders.items() if kind in kinds]
        whole = sizes.meter.of_block(widths)
        if ladders:
            _check_share("budget", share, block, whole, chosen, ladders)
        wanted.append((share * whole, chosen))
    return wanted


def _nearest(number: int, of_block: Mapping[int, Counts]) -> int:
    """Of the numbers of heads that may go from a block; of two that are as near the smaller."""
    return min(of_block, key=lambda gone: abs(gone - number))


def _spread(numbers: Sequence[int], most: int) -> list[int]:
    """All, or `most` of them from the first to the last, spread evenly."""
    if len(numbers) <= most:
        return list(numbers)
    return [numbers[round(place * (len(numbers) - 1) / (most - 1))] for place in range(most)]


def _choice(sizes: _Sizes, scores: Scores, counts: Sequence[Counts]) -> Choice:
    kept: dict[int, dict[str, Tensor]] = {}
    for of_block, count in zip(sizes.units, counts, strict=True):
        best = {kind: highest(of_block, kind, scores, number) for kind, number in count.items()}
        cut = {kind: kept_U for kind, kept_U in best.items() if len(kept_U) < of_block.of(kind).count}
        if cut:
            kept[of_block.block] = cut
    widths = [_widths(before, count) for before, count in zip(sizes.full, counts, strict=True)]
    frame, price = sizes.meter.frame, sizes.meter.of_block
    return Choice(
        kept=kept,
        widths=tuple(widths),
        parameters=frame.cost(widths, tokens=1).parameters,
        parameters_before=frame.cost(sizes.full, tokens=1).parameters,
        removed=1 - sum(map(price, widths)) / sum(map(price, sizes.full)),
    )


def _widths(full: Widths, counts: Mapping[str, int]) -> Widths:
    groups = counts.get("head_groups", full.kv_heads)
    queries = full.query_heads // full.kv_heads * groups if groups else 0
    return replace(
        full,
        kv_heads=groups,
        query_heads=counts.get("query_heads", queries),
        channels=counts.get("channels", full.channels),
    )


def highest(of_block: BlockUnits, kind: str, scores: Scores, count: int) -> Tensor:
    """The `count` units of the highest scores, ascending, as many in each part; of equal ones the first.

    Raises ValueError for scores that do not fit the units.
    """
    units, score_U = of_block.of(kind), scores[of_block.block].get(kind)
    if score_U is None or score_U.shape != (units.count,) or not score_U.isfinite().all():
        given = "none" if score_U is None else f"shape {tuple(score_U.shape)}, or NaN or infinity,"
        raise ValueError(
            f"scores: {given} given for the {kind} of block {of_block.block}, valid is one for each of {units.count}"
        )
    by_part = score_U.view(units.parts, -1).argsort(dim=1, descending=True, stable=True)[:, : count // units.parts]
    first = torch.arange(0, units.count, units.count // units.parts, device=by_part.device)
    return (by_part + first[:, None]).flatten().sort().values


def _shares(field: str, share: Share, blocks: int) -> list[float]:
    shares = [share] * blocks if isinstance(share, int | float) else list(share)
    if len(shares) != blocks:
        raise ValueError(f"{field}: {len(shares)} shares given, the model has {blocks} blocks")
    for each in shares:
        if not 0 <= each < 1:
            raise ValueError(f"{field}: {each} given, valid is 0 <= {field} < 1")
    return shares


def _check_kinds(kinds: Sequence[str], units: Sequence[BlockUnits]) -> None:
    if not kinds or len(set(kinds)) < len(kinds) or not set(kinds) <= set(KINDS):
        raise ValueError(f"kinds: {', '.join(kinds) or 'none'} given, valid is some of {', '.join(KINDS)}")
    if {"head_groups", "query_heads"} <= set(kinds):
        raise ValueError("kinds: head_groups and query_heads given; cut one, then the other")
    for kind in kinds:
        if not any(kind in of_block.kinds for of_block in units):
            units[0].of(kind)  # raises, saying what there is


def _check_share(
    field: str, share: float, block: int, whole: int, chosen: Sequence[Ladder], every: Mapping[str, Ladder]
) -> None:
    """Raises ValueError where what can go of the chosen kinds is all further than half a step from `share` of `whole`.

    Nothing may always go. What is called valid leaves that out, as one who asks for a cut means one.
    """
    least = min((ladder.step * ladder.each for ladder in chosen if ladder.step), default=0) / whole
    last = min((ladder.last_step * ladder.each for ladder in chosen if ladder.step), default=0) / whole
    most = sum(ladder.removed(ladder.counts[-1]) for ladder in chosen) / whole
    if share and not least / 2 < share <= most + max(last / 2, DIGITS):
        steps = ", ".join(f"{ladder.step} of {ladder.counts[0]} {kind}" for kind, ladder in every.items())
        ends = dict.fromkeys((f"{least:.4g}", f"{most:.4g}"))
        valid = " to ".join(ends) if most else "none"
        raise ValueError(f"{field}: {share:g} given for block {block}, valid is {valid}; the least to go is {steps}")
