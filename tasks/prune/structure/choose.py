"""Which units stay: those of the highest scores in each block, as many as a budget leaves.

What is to go is a share of the parameters of a block, or of its units of a kind. It is the same in every block, or each
has its own: an allocation. Heads go whole and FFNs get widths of `round_to`, so a share is met as nearly as these steps
allow, and what is left then is counted by tasks.model.cost.

Axes: U units of one kind in a block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.model.cost import Frame, Part, Widths, sizes_of
from tasks.model.units import KINDS, BlockUnits, units_of
from tasks.prune.structure.width import Kept, rounded

Scores = Sequence[Mapping[str, Tensor]] | Mapping[int, Mapping[str, Tensor]]  # of each block, by kind, (U,)
Share = float | Sequence[float]  # 0 to below 1, for all blocks or for each

DIGITS = 1e-4  # shares are shown to so much, and taken as they are shown


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The units that stay, of the kinds that lose some, and the widths that all blocks then have.

    `parameters`: of the whole model then, `parameters_before` now. `removed`: the share of those in its blocks that
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
    kinds: Sequence[str] = ("head_groups", "channels"),
    round_to: int = 64,
) -> Choice:
    """What stays when `budget` of the parameters of each block goes, in units of these `kinds`.

    Of two kinds each loses the same share, but for the steps: heads are rounded up or down, whichever lets the channels
    come nearer to the budget; where a block has only one of them, that loses it all. One head group, one query head of
    each group, and one step of channels stay at least.

    Raises ValueError for kinds that are not there or cannot be cut together, for scores that do not fit the units, and
    for a budget below the least step or beyond what can go: it says what is valid, and the least steps of all kinds.
    """
    frame, full = sizes_of(model)
    units, counts = units_of(model), []
    _check_kinds(kinds, units)
    for of_block, widths, share in zip(units, full, _shares("budget", budget, len(units)), strict=True):
        ladders = _ladders(frame, widths, of_block, round_to)
        chosen = [ladder for kind, ladder in ladders.items() if kind in kinds]
        whole = frame.block_cost(widths, tokens=1).parameters
        _check_share("budget", share, of_block.block, whole, chosen, ladders)
        counts.append(_spend(share * whole, chosen))
    return _choice(frame, full, units, scores, counts)


def choose_units(model: PreTrainedModel, scores: Scores, shares: Mapping[str, Share], *, round_to: int = 64) -> Choice:
    """What stays when of each kind its share of the units of each block goes: {"channels": 0.3} for FFN -30 %.

    Raises as `choose`.
    """
    frame, full = sizes_of(model)
    units = units_of(model)
    _check_kinds(list(shares), units)
    counts: list[dict[str, int]] = [{} for _ in units]
    for kind, given in shares.items():
        for of_block, widths, share in zip(units, full, _shares(kind, given, len(units)), strict=True):
            ladders = _ladders(frame, widths, of_block, round_to)
            if kind in ladders:
                whole = ladders[kind].full
                _check_share(kind, share, of_block.block, whole, [ladders[kind]], ladders)
                counts[of_block.block] |= _spend(share * whole, [ladders[kind]])
    return _choice(frame, full, units, scores, counts)


@dataclass(frozen=True, kw_only=True)
class _Ladder:
    """The numbers of units of a kind that may stay in a block, from all downwards, and the parameters of one unit."""

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

    def removed(self, count: int) -> int:
        return (self.counts[0] - count) * self.each

    def nearest(self, wanted: float) -> list[int]:
        """The counts by how near they come to removing so much; of two that come as near the larger is first."""
        return sorted(self.counts, key=lambda count: abs(self.removed(count) - wanted))


def _ladders(frame: Frame, widths: Widths, of_block: BlockUnits, round_to: int) -> dict[str, _Ladder]:
    """Of every kind that the block has."""
    counts: dict[str, Sequence[int]] = {
        kind: range(units.count, 0, -units.parts) for kind, units in of_block.kinds.items()
    }
    if (channels := of_block.channels) is not None:
        valid = {rounded(width, full=channels.count, round_to=round_to) for width in range(1, channels.count + 1)}
        counts["channels"] = sorted(valid, reverse=True)
    query_head, kv_head, channel = (_size(part) for part in (frame.query_head, frame.kv_head, frame.channel))
    group = kv_head + widths.query_heads // max(widths.kv_heads, 1) * query_head
    each = {"head_groups": group, "query_heads": query_head, "channels": channel}
    return {kind: _Ladder(kind=kind, counts=counts[kind], each=each[kind]) for kind in counts}


def _spend(wanted: float, ladders: Sequence[_Ladder]) -> dict[str, int]:
    """How many units of each kind stay, so that parameters as near as can be to `wanted` go; of two kinds at most."""
    if not wanted:
        return {}
    first, *others = ladders
    options = []
    for count in first.nearest(wanted * first.full / sum(ladder.full for ladder in ladders))[:2]:
        missing = wanted - first.removed(count)
        options.append({first.kind: count} | {other.kind: other.nearest(missing)[0] for other in others})
    return min(options, key=lambda option: abs(sum(each.removed(option[each.kind]) for each in ladders) - wanted))


def _choice(
    frame: Frame, full: Sequence[Widths], units: Sequence[BlockUnits], scores: Scores, counts: Sequence[dict[str, int]]
) -> Choice:
    kept: dict[int, dict[str, Tensor]] = {}
    for of_block, count in zip(units, counts, strict=True):
        best = {kind: _best(of_block, kind, scores, number) for kind, number in count.items()}
        cut = {kind: kept_U for kind, kept_U in best.items() if len(kept_U) < of_block.of(kind).count}
        if cut:
            kept[of_block.block] = cut
    widths = [_widths(before, count) for before, count in zip(full, counts, strict=True)]
    outside, after, before = (frame.cost(blocks, tokens=1).parameters for blocks in ((), widths, full))
    return Choice(
        kept=kept,
        widths=tuple(widths),
        parameters=after,
        parameters_before=before,
        removed=(before - after) / (before - outside),
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


def _best(of_block: BlockUnits, kind: str, scores: Scores, count: int) -> Tensor:
    """The `count` units of the highest scores, ascending, as many in each part; of equal ones the first."""
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
    field: str, share: float, block: int, whole: int, chosen: Sequence[_Ladder], every: Mapping[str, _Ladder]
) -> None:
    """Raises ValueError where `share` of `whole` cannot go of the chosen kinds, but for rounding to `DIGITS`."""
    least = min((ladder.step * ladder.each for ladder in chosen if ladder.step), default=0) / whole
    most = sum(ladder.removed(ladder.counts[-1]) for ladder in chosen) / whole
    if share and not least - DIGITS <= share <= most + DIGITS:
        steps = ", ".join(f"{ladder.step} of {ladder.counts[0]} {kind}" for kind, ladder in every.items())
        valid = f"0 or {round(least, 4):g} to {round(most, 4):g}" if most else "0"
        raise ValueError(f"{field}: {share:g} given for block {block}, valid is {valid}; the least to go is {steps}")


def _size(part: Part) -> int:
    return part.weights + part.biases
