"""`espalier plan <flow> …`: what a run would take, stage by stage, before it is started; nothing is computed."""

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.activation_words import say_activation
from flows.terminal import say
from flows.words import say_oneshot, say_slice, say_sweep

if TYPE_CHECKING:
    from flows.prepare import Found
    from tasks.record.runs.planning import Plan

PLAN = "forecast the time, memory and disk of a run from earlier ones, and check its words"


def say_plan(made: argparse.ArgumentParser) -> None:
    flows = made.add_subparsers(metavar="flow", required=True)
    words = {"oneshot": say_oneshot, "slice": say_slice, "activation": say_activation, "sweep": say_sweep}
    for name, say_words in words.items():
        own = flows.add_parser(name, help=f"as `espalier {name}`", description=f"{PLAN}; words as `espalier {name}`")
        say_words(own)
        own.set_defaults(run=run_plan, flow=name)


def run_plan(arguments: argparse.Namespace) -> int:
    from flows.prepare import check, find
    from tasks.record.runs.planning import plan, together

    plans = []
    for point in _points(arguments):
        check(point)
        if (of_point := plan(_ahead(point, find(point)[0]))) is None:
            say(f"no run of {_flow(point)} is recorded yet: nothing to forecast it from; its words are valid")
            return 0
        plans.append(of_point)
    found = plans[0] if len(plans) == 1 else together(plans)
    _show(found, len(plans), aside=arguments.json)
    return 0


def warnings(found: "Plan") -> list[str]:
    """What this machine may not have enough of."""
    from tasks.calibrate.memory import free_bytes
    from tasks.record import home
    from tasks.record.pages import units

    peak = max((step.peak_bytes or 0 for step in found.steps), default=0)
    needs = (("memory", peak, free_bytes()), ("disk", found.stored_bytes or 0, shutil.disk_usage(home.root()).free))
    return [
        f"warning: about {units.size(needed)} of {what} may be needed, {units.size(free)} are free"
        for what, needed, free in needs
        if needed > free
    ]


def _points(arguments: argparse.Namespace) -> list[Any]:
    """The runs that the words ask for: of a sweep, all its points."""
    from flows.activation_choices import activation_of
    from flows.parameters import oneshot_of, slice_of, sweep_of

    if arguments.flow == "sweep":
        return [*sweep_of(arguments).points]
    parse: dict[str, Callable[[argparse.Namespace], Any]] = {
        "oneshot": oneshot_of,
        "slice": slice_of,
        "activation": lambda words: activation_of(vars(words)),
    }
    return [parse[arguments.flow](arguments)]


def _flow(point: Any) -> str:
    return type(point).__name__.lower()


def _ahead(point: Any, found: "Found") -> Any:
    from tasks.model.load import resolve, weight_bytes
    from tasks.record.provenance import machine
    from tasks.record.runs.planning import Ahead

    return Ahead(
        flow=_flow(point),
        parameters=point.model_dump(mode="json"),
        model_hash=found.model.hash,
        method=point.name,
        pattern=point.pattern,
        machine=machine(),
        size_bytes=weight_bytes(resolve(point.model)),
        calibration_tokens=point.samples * found.window,
        recovery_tokens=getattr(point, "recover_tokens", 0),
    )


def _show(found: "Plan", points: int, aside: bool) -> None:
    from tasks.record.pages import units

    total, least, most = (sum(getattr(step, name) for step in found.steps) for name in ("seconds", "least", "most"))
    peak = max((step.peak_bytes or 0 for step in found.steps), default=0) or None
    warned = warnings(found)
    if aside:
        facts = {"seconds": total, "least": least, "most": most, "peak_bytes": peak, "warnings": warned}
        print(json.dumps(asdict(found) | facts))
        return
    print("| stage | seconds | least | most | peak of the process | as seen in |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for step in found.steps:
        times = (
            " | ".join(f"{each:.1f}" for each in (step.seconds, step.least, step.most)) if step.looks else "? | ? | ?"
        )
        seen = f"{step.looks} of {step.alike}" if step.looks else "nothing"
        print(f"| {step.stage} | {times} | {units.size(step.peak_bytes) if step.peak_bytes else '?'} | {seen} |")
    runs = f" for {points} runs, what they share once" if points > 1 else ""
    stored = f", {units.size(found.stored_bytes)} on the disk" if found.stored_bytes else ""
    times = f"{units.seconds(total)} ({units.seconds(least)} to {units.seconds(most)})"
    print(f"\nIn all {times}{runs}{stored}; the stages are those of {found.after}.")
    unknown = [step.stage for step in found.steps if not step.looks]
    if unknown:
        print(f"Never computed on this machine, so not counted: {', '.join(unknown)}.")
    print("What was computed before, from the same inputs by the same code, is found again and takes no time.")
    if found.same:
        print("The very same parameters have been run already.")
    for warning in warned:
        say(warning)
