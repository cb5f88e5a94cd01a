"""The door of the record room. Its tasks are never cached: every run has rows, an entry and a page of its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.handles import Context, EvaluationRow, Packed, SpeedRow
from tasks.record import metrics, registry, tracking
from tasks.record import report as pages


def uncached(name: str) -> Callable[[Callable], Callable[..., Any]]:
    """A task that runs each time, and again when a disk or a database was busy."""
    again = {"retries": 2, "retry_delay_seconds": 1, "timeout_seconds": 600}
    return task(name=name, cache_policy=NO_CACHE, persist_result=False, **again)  # type: ignore[call-overload]


@uncached("record")
def record(context: Context, tables: Mapping[str, Sequence[Any]]) -> None:
    """Write the rows of each table; recording the same rows again replaces them."""
    for table, rows in tables.items():
        metrics.record(context, table, rows)


@uncached("publish")
def publish(
    context: Context,
    parameters: Mapping[str, Any],
    packed: Packed,
    evaluations: Sequence[EvaluationRow],
    speeds: Sequence[SpeedRow],
    sweep: str | None = None,
) -> str:
    """Log the run in MLflow, register its packed model, and return the version, such as `espalier-builtin/3`."""
    result = next(row for row in evaluations if row.subject == "pruned")
    logged = tracking.log_run(context, parameters=parameters, evaluations=evaluations, speeds=speeds, sweep=sweep)
    version = registry.publish(context, packed.checkpoint, result, logged)
    return f"{version.name}/{version.version}"


@uncached("report")
def write_report(run: str) -> str:
    """Write the page of a run or a sweep, attach it to the MLflow run, and return where it is."""
    page = pages.write_report(run)
    tracking.attach_report(run, page)
    return str(page)
