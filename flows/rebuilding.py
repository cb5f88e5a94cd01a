"""`espalier rebuild`: a version made once more from its stored parameters, in an empty store, and held to its bytes."""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flows.comparing import NAMED, show
from flows.server import prefect_server
from flows.terminal import say

if TYPE_CHECKING:
    from flows.outcome import Outcome
    from tasks.record.runs.lineage import Differences, Lineage

FLOWS = ("oneshot", "slice", "activation", "iterative")  # those that register what they make


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """`made`: kind of artifact -> its stored hash and the new one; `differs`: the inputs that have changed since."""

    made: dict[str, tuple[str, str | None]]
    differs: "Differences"

    @property
    def same(self) -> bool:
        return all(stored == made for stored, made in self.made.values())


def say_rebuild(made: argparse.ArgumentParser) -> None:
    made.add_argument("version", metavar="VERSION", help=NAMED)
    made.add_argument("--json", action="store_true", help="the last line on stdout is one JSON object")


def run_rebuild(arguments: argparse.Namespace) -> int:
    from tasks.record.runs.comparison_words import differing_words, made_words
    from tasks.record.runs.lineage import lineage_of

    stored = lineage_of(arguments.version)
    start = flow_of(stored)
    with prefect_server() as interface, fresh_store():
        say(f"watch this run at {interface}")
        again = lineage_of(start().run)
    found = hold(stored, again)
    if arguments.json:
        show({"run": stored.run, "version": stored.version, "same": found.same} | vars(found))
    else:
        show("\n".join([made_words(found.made), differing_words(found.differs)]))
    say(verdict(stored, found))
    return 0 if found.same else 1


def flow_of(stored: "Lineage") -> Callable[[], "Outcome"]:
    """The flow that made it, with its own parameters, checked before any work; timing alone is left out."""
    if stored.flow not in FLOWS or not stored.contents:
        valid = f"valid is a run of {', '.join(FLOWS)}"
        raise ValueError(f"version: {stored.run} is a run of {stored.flow}, which registers no model; {valid}")
    from flows.activation import sparsify_inputs
    from flows.activation_choices import Activation
    from flows.choices import Oneshot, Slice
    from flows.iterative import iterative
    from flows.iterative_choices import Iterative
    from flows.iterative_plan import prepare_iterative
    from flows.oneshot import oneshot
    from flows.prepare import prepare, prepare_activation, prepare_slice
    from flows.slice import slice_model

    flows: dict[str, tuple[Any, Callable, Callable]] = {
        "oneshot": (Oneshot, prepare, oneshot),
        "slice": (Slice, prepare_slice, slice_model),
        "activation": (Activation, prepare_activation, sparsify_inputs),
        "iterative": (Iterative, prepare_iterative, iterative),
    }
    kind, check, flow = flows[stored.flow]
    parameters = kind.parse(**stored.parameters).model_copy(update={"speed": False})
    check(parameters)
    return lambda: flow(parameters)


@contextmanager
def fresh_store() -> Iterator[None]:
    """Whatever runs within finds an empty artifacts folder, on the disk of the real one, and leaves nothing behind."""
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

    from tasks.record import home

    said = os.environ.get("ESPALIER_ARTIFACTS")
    with home.draft_folder() as folder, temporary_settings({PREFECT_LOCAL_STORAGE_PATH: folder / "results"}):
        os.environ["ESPALIER_ARTIFACTS"] = str(folder)
        try:
            yield
        finally:
            del os.environ["ESPALIER_ARTIFACTS"]
            if said is not None:
                os.environ["ESPALIER_ARTIFACTS"] = said


def hold(stored: "Lineage", again: "Lineage") -> Rebuilt:
    """What was made beside what is stored; of the code, that of the stages which both ran."""
    from tasks.record.runs.lineage import differences

    code = {stage: code for stage, code in stored.code.items() if stage in again.code}
    alike = replace(again, parameters=stored.parameters, code={stage: again.code[stage] for stage in code})
    made = {kind: (content, again.contents.get(kind)) for kind, content in stored.contents.items()}
    return Rebuilt(made=made, differs=differences(replace(stored, code=code), alike))


def verdict(stored: "Lineage", found: Rebuilt) -> str:
    """One line: whether the bytes are the same, and what that may be due to."""
    version = stored.version or stored.run
    changed = [f"{name} ({group})" for group, own in found.differs.items() for name in own]
    unknown = [] if stored.code else ["the code, of which its rows say nothing, may have"]
    if found.same:
        return f"{version} came out with the same bytes" + (f", although {_listed(changed)} changed" if changed else "")
    if changed or unknown:
        return f"{version} came out different: {_listed([*changed, *unknown])} changed since"
    return f"{version} came out different, and no input has changed: this computation does not repeat itself here"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
