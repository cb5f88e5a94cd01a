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
from flows.runners import Running, run_at_once, with_server_in_reach
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
def sweep(parameters: Sweep, at_once: bool = False) -> SweepOutcome:
    """Check every point before the first one starts; run them; compare them. `at_once`: by the flow's task runner."""
    check_points(parameters.points)
    run, points = runtime.flow_run.name, parameters.points
    of: dict[str, Any] = {"sweep": run, "sweep_points": len(points)}

    def told(done: int, point: Oneshot | Slice | Activation, outcome: Outcome) -> None:
        score = f"{point.name} {point.pattern}, perplexity {outcome.result.ppl:.4g}"
        tell_finished(f"{done} of {len(points)}: {score}")

    outcomes: list[Outcome] = run_at_once(_run_told, points, of, told) if at_once else []
    for point in points[len(outcomes) :]:
        outcomes.append(_run(point, of))
        told(len(outcomes), point, outcomes[-1])
    report = run_always(write_report, run)
    run_always(show_run, run, report)
    return SweepOutcome(run=run, report=report, outcomes=tuple(outcomes))


def sweep_on(parameters: Sweep, running: Running) -> SweepOutcome:
    """The flow where it is to run."""
    if running.runner == "here":
        return sweep(parameters)
    with with_server_in_reach():
        return sweep.with_options(task_runner=running.task_runner())(parameters, at_once=True)  # type: ignore[arg-type]


@flow(name="sweep preset", flow_run_name=name_run)
def sweep_preset(preset: str) -> SweepOutcome:
    """A sweep by the name of its preset: what a schedule runs."""
    return sweep(sweep_named(preset))


def _run_told(told: str, of: dict[str, Any]) -> Outcome:
    """A point that comes as JSON from another process, which has classes of its own."""
    (point,) = Sweep.model_validate_json(told).points
    return _run(point, of)


def _run(point: Oneshot | Slice | Activation, of: dict[str, Any]) -> Outcome:
    match point:
        case Slice():
            return slice_model(point, **of)
        case Activation():
            return sparsify_inputs(point, **of)
        case _:
            return oneshot(point, **of)
