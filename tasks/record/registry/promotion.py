"""Promotion: an alias that people rely on, such as `champion`, moves to a version that passes every gate, or stays.

The aliases `best` and `best-…` are not moved so: registry.publish does it, by the rules of its own docstring.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.handles import Checkpoint
from tasks.record import home
from tasks.record.registry.gates import Gate, Limits, closed, judge
from tasks.record.registry.tracking import tracking
from tasks.record.registry.versions import find
from tasks.record.runs.lineage import Lineage

ALIAS = re.compile(r"[a-zA-Z_][\w-]*")


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What came of it: `before` had the alias and `holder` has it now, which is `version` if it passed."""

    version: str
    alias: str
    before: str | None
    holder: str | None
    gates: Sequence[Gate]

    @property
    def passed(self) -> bool:
        return not closed(self.gates)


def check_alias(alias: str) -> None:
    """ValueError, in one line, for an alias that MLflow refuses, or that moves by itself."""
    if alias == "best" or alias.startswith("best-"):
        raise ValueError(f"alias: {alias} moves by itself, to the lowest perplexity; give another, such as champion")
    if not ALIAS.fullmatch(alias) or re.fullmatch(r"latest|[vV]\d+", alias):
        valid = "letters, digits, '_' and '-', not latest and not a number such as v3"
        raise ValueError(f"alias: {alias!r} given, valid is {valid}")


def promote(lineage: Lineage, alias: str, limits: Limits) -> Promotion:
    """Judge the version of `lineage`, and move `alias` to it if it passes; its tags then say by which rows.

    Raises ValueError if the run registered none; home.Damaged if its files are not those that were registered.
    """
    check_alias(alias)
    if lineage.version is None:
        raise ValueError(f"version: run {lineage.run} registered none; `espalier runs` lists those that did")
    name, _, number = lineage.version.rpartition("/")
    with tracking() as client:
        found = find(client, name, number)
        tags = found.tags
        folder = Path(client.get_model_version_download_uri(name, number), "artifacts", tags["checkpoint"])
        home.verify(Checkpoint(hash=tags["checkpoint"], folder=str(folder), kind=tags.get("kind", "packed")))
        gates = judge(tags["checkpoint"], tags["dataset_hash"], int(tags["window"]), limits)
        holder = client.get_registered_model(name).aliases.get(alias)
        before = None if holder is None else f"{name}/{holder}"
        if closed(gates):
            return Promotion(version=lineage.version, alias=alias, before=before, holder=before, gates=gates)
        for gate in gates:
            client.set_model_version_tag(name, number, f"{alias} {gate.name}", f"{gate.says} ({gate.evidence})")
        since = datetime.now(UTC).isoformat(timespec="seconds")
        client.set_model_version_tag(name, number, f"{alias} since", since)
        client.set_registered_model_alias(name, alias, number)
    return Promotion(version=lineage.version, alias=alias, before=before, holder=lineage.version, gates=gates)
