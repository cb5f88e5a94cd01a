"""Where a run, or the version that it registered, came from: data, code, parameters, seeds, libraries, machine.

All of it is read from the stored rows: a version says which run made it, and every row of a run says what it came of.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.record.metrics import query_named
from tasks.record.registry.versions import number_of
from tasks.record.runs.flat import flat, text_of

Differences = Mapping[
    str, Mapping[str, tuple[str | None, str | None]]
]  # group -> name -> the two values, None for none
UNRELATED = {"memory_bytes"}  # of a machine: it changes from one start to the next, and no result with it


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """What a run came of and what it left.

    `texts`: role and source -> SHA-256 of the documents. `code`: stage -> SHA-256 of what it computed with, empty of
    runs from before that was stored. `contents`: kind of artifact -> the hash of what the run made.
    """

    run: str
    flow: str
    model: str
    model_hash: str
    method: str
    pattern: str
    seed: int
    command: str
    recorded_at: str
    version: str | None
    parameters: Mapping[str, Any]
    texts: Mapping[str, str]
    code: Mapping[str, str]
    libraries: Mapping[str, str]
    machine: Mapping[str, Any]
    contents: Mapping[str, str]

    def inputs(self) -> dict[str, dict[str, str]]:
        """Group -> name -> value, as text, of all that the result depends on."""
        data = {"model": self.model_hash} | {f"text, {name}": found for name, found in self.texts.items()}
        machine = {name: value for name, value in self.machine.items() if name not in UNRELATED}
        groups: dict[str, Mapping[str, Any]] = {
            "parameters": flat(self.parameters),
            "data": data,
            "code": self.code,
            "libraries": self.libraries,
            "machine": machine,
        }
        return {group: {name: text_of(value) for name, value in found.items()} for group, found in groups.items()}


def lineage_of(named: str) -> Lineage:
    """Of a run by its id, or of a version: `NAME/3`, `NAME@champion`. ValueError, in one line, for anything else."""
    name, at, alias = named.partition("@")
    known = f"{name}/{number_of(name, alias)}" if at else named
    found = query_named("lineage", named=known)
    if not found:
        points = ", ".join(row["run"] for row in query_named("scope", run=named))
        raise ValueError(
            f"run: {named} is a sweep; choose one of its runs, {points}"
            if points
            else f"run: {named!r} is no recorded run and no version such as NAME/3 or NAME@champion; "
            "`espalier runs` lists what there is"
        )
    [row] = found
    row["version"], row["libraries"] = row.pop("registered_version"), row.pop("versions")
    row |= {name: json.loads(row[name]) for name in ("parameters", "libraries", "machine")}
    row |= {name: row[name] or {} for name in ("texts", "code", "contents")}  # no row of any is null
    return Lineage(**row)


def differences(a: Lineage, b: Lineage) -> Differences:
    """The inputs that are not the same."""
    found = {}
    for group, of_a in a.inputs().items():
        of_b = b.inputs()[group]
        if group == "code" and not (of_a and of_b):
            continue  # older rows do not say
        names = [*of_a, *(name for name in of_b if name not in of_a)]
        unlike = {name: (of_a.get(name), of_b.get(name)) for name in names if of_a.get(name) != of_b.get(name)}
        if unlike:
            found[group] = unlike
    return found
