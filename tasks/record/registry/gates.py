"""What a version must pass before an alias moves to it: quality, size and speed, each judged by a stored row.

A gate without a row is closed: what was not measured is not known to hold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from tasks.record.metrics import query_named
from tasks.record.pages import units
from tasks.record.pages.tables import Row

PHASES = ("prefill", "decode")
UNSCORED = "evaluations: no finished run has scored these bytes beside the dense model"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far a version may be from its dense model.

    `floor`: the share by which its perplexity may be higher, `size`: the share of its bytes that may be left, `speed`:
    how many times as fast it must at least be, by the lower end of the 95 % interval.
    """

    floor: float = 0.5
    size: float = 1.0
    speed: float = 0.8

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name}: {value} given, valid is a number of 0 or more")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Whether a figure holds to its limit. `evidence`: the row that says the figure, or which row is missing."""

    name: str  # quality | size | prefill speed | decode speed
    figure: float | None
    limit: float
    passed: bool
    says: str
    evidence: str


def judge(checkpoint: str, dataset_hash: str, window: int, limits: Limits) -> list[Gate]:
    """The gates of the version of the bytes `checkpoint`, registered for this text in this window."""
    rows = query_named("evidence", checkpoint=checkpoint, dataset_hash=dataset_hash, window=window)
    scored = next((row for row in rows if row["table"] == "evaluations"), None)
    timed = {row["phase"]: row for row in rows if row["table"] == "speeds"}
    return [
        _quality(scored, limits.floor),
        _size(scored, limits.size),
        *(_speed(phase, timed.get(phase), limits.speed) for phase in PHASES),
    ]


def _quality(row: Row | None, floor: float) -> Gate:
    if row is None:
        return _unknown("quality", 1 + floor, UNSCORED)
    rise = row["ppl"] / row["dense_ppl"]
    said = f"perplexity {units.digits(row['ppl'])}, {_times(rise)} the dense {units.digits(row['dense_ppl'])}"
    return _at_most("quality", rise, 1 + floor, said, _row(row, "source"))


def _size(row: Row | None, size: float) -> Gate:
    if row is None:
        return _unknown("size", size, UNSCORED)
    share = row["size_bytes"] / row["dense_bytes"]
    said = f"{units.size(row['size_bytes'])}, {_times(share)} the dense {units.size(row['dense_bytes'])}"
    return _at_most("size", share, size, said, _row(row, "source"))


def _speed(phase: str, row: Row | None, speed: float) -> Gate:
    name = f"{phase} speed"
    if row is None:
        return _unknown(name, speed, "speeds: no finished run has timed these bytes; run it without --no-speed")
    interval = f"{units.ratio(row['ratio'])} [{units.ratio(row['ratio_low'])}, {units.ratio(row['ratio_high'])}]"
    figure, passed = row["ratio_low"], row["ratio_low"] >= speed
    says = f"{interval} the dense, the lower end at least {speed:g}×"
    return Gate(name=name, figure=figure, limit=speed, passed=passed, says=says, evidence=_row(row, "phase", "device"))


def _at_most(name: str, figure: float, limit: float, said: str, evidence: str) -> Gate:
    """A figure that is not finite passes no gate."""
    says = f"{said}, at most {limit:g}×"
    return Gate(name=name, figure=figure, limit=limit, passed=figure <= limit, says=says, evidence=evidence)


def _unknown(name: str, limit: float, evidence: str) -> Gate:
    return Gate(name=name, figure=None, limit=limit, passed=False, says="not measured", evidence=evidence)


def _row(row: Row, *names: str) -> str:
    """A stored row by what tells it from the others of its table."""
    return f"{row['table']}: " + ", ".join(f"{name} {row[name]}" for name in ("run", "subject", *names))


def _times(value: float) -> str:
    return f"{value:.6g}×"  # six digits: what misses a limit by little must not read as equal to it


def closed(gates: Sequence[Gate]) -> list[Gate]:
    return [gate for gate in gates if not gate.passed]
