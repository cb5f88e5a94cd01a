"""How many units of each kind stay in a block, so that as much of its cost goes as a budget asks for.

The numbers that may stay are the rungs of a ladder: head groups go whole, query heads as many of each group, and FFNs
get widths of `round_to`. Of two kinds the first are heads, and channels make up what these leave of the budget.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.model.cost import Widths
from tasks.model.units import BlockUnits
from tasks.prune.structure.budget import Meter
from tasks.prune.structure.width import rounded

Counts = Mapping[str, int]  # of a block: kind -> how many of its units stay; all of what is not named


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The numbers of units of a kind that may stay in a block, from all downwards, and the cost of one unit."""

    kind: str
    counts: Sequence[int]
    each: int

    @property
    def full(self) -> int:
        return self.counts[0] * self.each

    @property
    def step(self) -> int:
        """The least number of units that can go; 0 where none can."""
        return self.counts[0] - self.counts[1] if len(self.counts) > 1 else 0

    @property
    def last_step(self) -> int:
        """The number of units by which the fewest that may stay differ from the next; 0 where none can go."""
        return self.counts[-2] - self.counts[-1] if len(self.counts) > 1 else 0

    def removed(self, count: int) -> int:
        return (self.counts[0] - count) * self.each

    def nearest(self, wanted: float) -> list[int]:
        """The two counts on either side of removing so much, the nearer first; of two that are as near the larger."""
        after = bisect_left(self.counts, wanted, key=self.removed)
        first = max(0, min(after - 1, len(self.counts) - 2))
        return sorted(self.counts[first : first + 2], key=lambda count: abs(self.removed(count) - wanted))


def ladders_of(meter: Meter, widths: Widths, of_block: BlockUnits, round_to: int) -> dict[str, Ladder]:
    """Of every kind that the block has and that costs something, channels last. Raises ValueError as `rounded`."""
    counts: dict[str, Sequence[int]] = {
        kind: range(units.count, 0, -units.parts) for kind, units in of_block.kinds.items()
    }
    if (channels := of_block.channels) is not None:
        valid = {rounded(width, full=channels.count, round_to=round_to) for width in range(1, channels.count + 1)}
        counts["channels"] = sorted(valid, reverse=True)
    ladders = [Ladder(kind=kind, counts=counts[kind], each=meter.of_unit(kind, widths)) for kind in counts]
    return {ladder.kind: ladder for ladder in ladders if ladder.each}


def spend(wanted: float, ladders: Sequence[Ladder]) -> Counts:
    """What stays so that as near as can be to `wanted` goes; of two kinds each loses the same share.

    Heads are rounded up or down, whichever lets the channels come nearer to `wanted`.
    """
    if not wanted or not ladders:
        return {}
    in_heads = wanted * ladders[0].full / sum(ladder.full for ladder in ladders)
    options = [_with_heads(count, wanted, ladders) for count in ladders[0].nearest(in_heads)]
    return min(options, key=lambda option: _missed(option, wanted, ladders))


def divisions(wanted: float, ladders: Sequence[Ladder]) -> dict[int, Counts]:
    """What stays for every number of heads that may go, the least first; where there are no two kinds, that of `spend`.

    Those that come to `wanted` within half of the smallest step there is; where none does, the nearest.
    """
    if not wanted or len(ladders) < 2:
        return {0: spend(wanted, ladders)}
    heads = ladders[0]
    smallest = min(ladder.step * ladder.each for ladder in ladders if ladder.step)
    ways = {heads.counts[0] - count: _with_heads(count, wanted, ladders) for count in heads.counts}
    missed = {gone: _missed(way, wanted, ladders) for gone, way in ways.items()}
    room = max(smallest / 2, min(missed.values()))
    return {gone: way for gone, way in ways.items() if missed[gone] <= room}


def _with_heads(count: int, wanted: float, ladders: Sequence[Ladder]) -> Counts:
    """So many units of the first kind stay, and of the other what makes up the rest."""
    heads, *others = ladders
    missing = wanted - heads.removed(count)
    return {heads.kind: count} | {other.kind: other.nearest(missing)[0] for other in others}


def _missed(option: Counts, wanted: float, ladders: Sequence[Ladder]) -> float:
    return abs(sum(ladder.removed(option[ladder.kind]) for ladder in ladders) - wanted)
