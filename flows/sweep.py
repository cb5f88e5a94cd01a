"""A grid of runs, then one report. Stages that points share (texts, the dense model's score) are computed once."""

from dataclasses import dataclass
from typing import Any

from prefect import flow, runtime

from flows.activation import sparsify_inputs
from flows.activation_choices import Activation
from flows.choices import Oneshot, Slice, Sweep
from flows.oneshot import oneshot
from flows.outcome import Outcome, name_run
from flows.prepare import check_points
from flows.presets import sweep_named
from flows.show import show_run
from flows.slice import slice_model
from tasks.progress import tell_finished
from tasks.record.task import write_report
from tasks.stage import run_always


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """The points in the order of the grid, and the page that compares them."""

    run: str
    report: str
    outcomes: tuple[Outcome, ...]


@flow(name="sweep", flow_run_name=name_run)
def sweep(parameters: Sweep) -> SweepOutcome:
    """Check every point before the first one starts; run them; compare them."""
    check_points(parameters.points)
    run = runtime.flow_run.name
    of: dict[str, Any] = {"sweep": run, "sweep_points": len(parameters.points)}
    outcomes = []
    for point in parameters.points:
        outcomes.append(_run(point, of))
        tell_finished(
            f"{len(outcomes)} of {len(parameters.points)}: {point.name} {point.pattern}, perplexity "
            f"{outcomes[-1].result.ppl:.4g}"
        )
    report = run_always(write_report, run)
    run_always(show_run, run, report)
    return SweepOutcome(run=run, report=report, outcomes=tuple(outcomes))


@flow(name="sweep preset", flow_run_name=name_run)
def sweep_preset(preset: str) -> SweepOutcome:
    """A sweep by the name of its preset: what a schedule runs."""
    return sweep(sweep_named(preset))


def _run(point: Oneshot | Slice | Activation, of: dict[str, Any]) -> Outcome:
    match point:
        case Slice():
            return slice_model(point, **of)
        case Activation():
            return sparsify_inputs(point, **of)
        case _:
            return oneshot(point, **of)
