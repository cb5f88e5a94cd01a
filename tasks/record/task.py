"""The door of the record room. Its tasks are never cached: every run has rows, an entry and a page of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.evaluate.benchmark_row import BenchmarkRow
from tasks.handles import Checkpoint, Context, EvaluationRow, RunRow, SpeedRow
from tasks.record import metrics
from tasks.record.pages import report as pages
from tasks.record.registry import tracking, versions
from tasks.record.registry.learned_policies import Learned
from tasks.train_controller.allocators.rows import SearchRow


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
    row: RunRow,
    parameters: Mapping[str, Any],
    stored: Checkpoint,
    evaluations: Sequence[EvaluationRow],
    speeds: Sequence[SpeedRow],
    moves: Sequence[SearchRow] = (),
) -> None:
    """Log the run in MLflow, register the model it stored, and write the run's last row; only then is it FINISHED.

    `moves`: of a search for an allocation. To `row` are added the version, such as `espalier-builtin/3`, and the
    seconds that publishing took.
    """
    started = perf_counter()
    dense, result = (next(row for row in evaluations if row.subject == subject) for subject in ("dense", "pruned"))
    removed = 1 - result.parameters / dense.parameters
    facts: dict[str, Any] = {"parameters": parameters, "evaluations": evaluations, "speeds": speeds, "moves": moves}
    with tracking.log_run(context, **facts, sweep=row.sweep) as (client, run_id):
        made = versions.publish(client, context, stored, result, run_id, removed)
        seconds = row.seconds + perf_counter() - started
        last = replace(row, registered_version=f"{made.name}/{made.version}", seconds=seconds)
        metrics.record(context, "runs", [last])
        metrics.keep_views()


@uncached("log")
def log(
    context: Context,
    row: RunRow,
    parameters: Mapping[str, Any],
    evaluations: Sequence[EvaluationRow] = (),
    speeds: Sequence[SpeedRow] = (),
    learned: Learned | None = None,
    benchmarks: Sequence[BenchmarkRow] = (),
) -> None:
    """As `publish`, of a run that has no model to register; `learned`: the policies that it trained, if it did."""
    facts: dict[str, Any] = {"parameters": parameters, "evaluations": evaluations, "speeds": speeds, "learned": learned}
    with tracking.log_run(context, **facts, benchmarks=benchmarks, sweep=row.sweep):
        metrics.record(context, "runs", [row])
        metrics.keep_views()


@uncached("report")
def write_report(run: str) -> str:
    """Write the page of a run or a sweep, attach it to the MLflow run, and return where it is."""
    page = pages.write_report(run)
    tracking.attach_report(run, page)
    return str(page)
