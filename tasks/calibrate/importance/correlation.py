"""How well an importance orders units as the measured loss without them does, and the rows that say so.

One sample of units is measured once (tasks.calibrate.importance.leave_one_out) and serves every importance.
"""

import random
from collections.abc import Mapping, Sequence

from scipy.stats import spearmanr

from tasks.calibrate.importance.importance import BLOCKS, Scores, Unit, units_of_kind
from tasks.handles import ImportanceRow, UnitRow
from tasks.model.units import BlockUnits

LEAST = 3  # units: the order of two is right or wrong by chance


def sample_units(units: Sequence[BlockUnits], kind: str, count: int, seed: int = 0) -> list[Unit]:
    """`count` units of a kind, drawn from all blocks together without repeating any, in order; all if they are fewer.

    Raises ValueError for a count below 3, and for a kind that no block has.
    """
    if count < LEAST:
        raise ValueError(f"count: {count} given, valid is {LEAST} or more")
    every = [unit for of_block in units for unit in units_of_kind(of_block, kind)]
    if not every:
        valid = ", ".join(
            [BLOCKS, *dict.fromkeys(known for of_block in units for known in (*of_block.parts, *of_block.kinds))]
        )
        raise ValueError(f"kind: {kind!r} given, this model has {valid}")
    return sorted(random.Random(seed).sample(every, min(count, len(every))))


def rank_correlation(scores: Scores, measured: Mapping[Unit, float]) -> float | None:
    """Spearman's rank correlation of the scores with the measured losses of the same units, -1 to 1; ties share a rank.

    None where all scores or all losses are equal, so that there is no order. Raises ValueError for fewer than 3 units,
    units of several kinds, whose scores cannot be compared, and units that have no score.
    """
    if len(measured) < LEAST:
        raise ValueError(f"measured: {len(measured)} units given, valid is {LEAST} or more")
    kinds = {unit.kind for unit in measured}
    if len(kinds) > 1:
        raise ValueError(f"measured: units of {', '.join(sorted(kinds))} given, valid is one kind")
    estimates = [_score(scores, unit) for unit in measured]
    losses = list(measured.values())
    if len(set(estimates)) == 1 or len(set(losses)) == 1:
        return None
    return float(spearmanr(estimates, losses).statistic)


def unit_rows(importance: str, scores: Scores, measured: Mapping[Unit, float]) -> list[UnitRow]:
    """A row for every unit that has a score; `measured` is of any of them."""
    return [
        UnitRow(
            importance=importance,
            block=block,
            kind=kind,
            unit=unit,
            score=score,
            loss_without=measured.get(Unit(block, kind, unit)),
        )
        for block, of_block in enumerate(scores)
        for kind, score_U in of_block.items()
        for unit, score in enumerate(score_U.tolist())
    ]


def importance_rows(importance: str, scores: Scores, measured: Mapping[Unit, float]) -> list[ImportanceRow]:
    """A row for every kind that is scored and was measured; of fewer than 3 units it has no correlation.

    Raises ValueError as `rank_correlation`.
    """
    rows = []
    for kind in dict.fromkeys(kind for of_block in scores for kind in of_block):
        of_kind = {unit: loss for unit, loss in measured.items() if unit.kind == kind}
        if of_kind:
            units = sum(len(of_block[kind]) for of_block in scores if kind in of_block)
            correlation = rank_correlation(scores, of_kind) if len(of_kind) >= LEAST else None
            rows.append(
                ImportanceRow(
                    importance=importance, kind=kind, units=units, sampled=len(of_kind), correlation=correlation
                )
            )
    return rows


def _score(scores: Scores, unit: Unit) -> float:
    of_block = scores[unit.block] if 0 <= unit.block < len(scores) else {}
    if unit.kind not in of_block or not 0 <= unit.unit < len(of_block[unit.kind]):
        raise ValueError(f"measured: unit {unit.unit} of the {unit.kind} of block {unit.block} given, it has no score")
    return of_block[unit.kind][unit.unit].item()
