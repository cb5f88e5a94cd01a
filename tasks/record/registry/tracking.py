"""MLflow's two stores in the artifacts folder: `mlflow.db` (SQLite) and `mlruns/` (files); and the runs in them.

A run of Espalier is a run of MLflow with the same parameters and metrics, found again by its tag `run`; a sweep is a
parent run whose children are its points. Recording a run twice leaves one.

No run looks finished before it is. A run is RUNNING only while the lock of the stores is held: one that is RUNNING when
the next writer takes the lock was left by a writer that was killed. It is ended as KILLED, or as FINISHED where its row
is in the table `runs`, which is the last thing that a run leaves. A sweep is SCHEDULED until its page is attached.
"""

import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.evaluate.benchmark_row import BenchmarkRow
from tasks.handles import Context, EvaluationRow, SpeedRow
from tasks.record import home, metrics
from tasks.record.disk import locked
from tasks.record.names import check_run
from tasks.record.pages.benchmarks import benchmark_metrics
from tasks.record.registry.learned_policies import Learned
from tasks.record.registry.shown_in_mlflow import curves_of_rows, describe_run
from tasks.record.runs.flat import flat, text_of
from tasks.train_controller.allocators.rows import SearchRow

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "espalier"
SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
OF_SQLITE = re.compile(r"\(sqlite3\.\w+\) (.+)")  # what SQLite said, in an error that goes on with the statement
AT_ONCE = 1000  # metrics that MLflow takes in one request
CURVES = ("loss", "best", "reward", "entropy")  # of a search, by its tokens
MEASURED = ("ppl", "nll", "bits_per_byte", "sparsity", "parameters", "size_bytes", "memory_bytes")


@contextmanager
def tracking() -> Iterator["MlflowClient"]:
    """A client of the stores, for one process at a time: what is looked up here is still true when it is used.

    Raises RuntimeError, in one line, where the database is held by somebody else, damaged or not to be written.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow  # takes a second, and reads its settings at this moment

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # a failure is one line of ours
    place = home.root() / "mlruns"
    place.mkdir(parents=True, exist_ok=True)
    with locked(place):
        try:
            mlflow.set_tracking_uri(tracking_uri())
            yield mlflow.MlflowClient(tracking_uri())
        except Exception as error:
            if found := OF_SQLITE.search(str(error)):
                database = home.root() / "mlflow.db"
                raise RuntimeError(f"MLflow's database {database} cannot be used: {found[1]}") from error
            raise


def tracking_uri() -> str:
    """What `mlflow server --backend-store-uri` takes."""
    return f"sqlite:///{home.root() / 'mlflow.db'}"


@contextmanager
def log_run(
    context: Context,
    *,
    parameters: Mapping[str, Any],
    evaluations: Sequence[EvaluationRow],
    speeds: Sequence[SpeedRow] = (),
    moves: Sequence[SearchRow] = (),
    learned: Learned | None = None,
    benchmarks: Sequence[BenchmarkRow] = (),
    sweep: str | None = None,
) -> Iterator[tuple["MlflowClient", str]]:
    """Record a run in MLflow; yield a client and MLflow's id of the run, for what else belongs to it.

    The run is RUNNING within, and FINISHED behind; or FAILED, if something is raised. Metrics of the dense model have
    the prefix `dense_`; those of a search (`search_loss`, `search_best`, …) have its tokens for steps. `learned`: what
    a run that trained policies has instead.
    """
    with tracking() as client:
        from mlflow.entities import Metric, Param, RunTag

        _end_forsaken(client)
        tags = {"run": context.run, "flow": context.flow, "model_hash": context.model_hash}
        tags |= {"dataset_hash": context.dataset_hash, "versions": context.versions, "machine": context.machine}
        if sweep:
            tags["mlflow.parentRunId"] = _find(client, sweep, name=f"sweep {sweep}")
            client.update_run(tags["mlflow.parentRunId"], "SCHEDULED")
        facts = flat(parameters) | {name: getattr(context, name) for name in ("model", "method", "pattern", "seed")}
        measured, points = metrics_of(evaluations, speeds) | benchmark_metrics(benchmarks), curves_of(moves)
        if learned is not None:
            measured, points = learned.metrics(), learned.curves()
        now_ms = int(time.time() * 1000)
        with _open(client, context.run, name=f"{context.method} {context.pattern} {context.run}") as run_id:
            client.log_batch(
                run_id,
                params=[Param(name, text_of(value)) for name, value in facts.items()],
                metrics=[Metric(*metric, now_ms, 0) for metric in measured.items()],
                tags=[RunTag(*tag) for tag in tags.items()],
            )
            _log_curves(client, run_id, points)
            for name, folder in ({} if learned is None else learned.folders).items():
                client.log_artifacts(run_id, str(folder), f"policies/{name}")
            yield client, run_id
            _log_curves(client, run_id, curves_of_rows(context.run))  # the rows are whole now
            describe_run(client, run_id, context.run)


def curves_of(moves: Sequence[SearchRow]) -> list[tuple[str, float, int]]:
    """The name, the value and the step of every point of the curves of a search, those left out that are not finite.

    Of several allocators in one search each has curves of its own, `search_rl_reward`.
    """
    several = len({move.allocator for move in moves}) > 1
    named = [(f"search_{move.allocator}_" if several else "search_", move) for move in moves]
    points = [(first + name, getattr(move, name), move.tokens) for first, move in named for name in CURVES]
    return [point for point in points if point[1] is not None and math.isfinite(point[1])]


def attach_report(run: str, page: Path) -> None:
    """Show a written page among the MLflow run's artifacts; `run` is a run or a sweep that log_run has recorded."""
    with tracking() as client, _open(client, run, name=f"sweep {run}") as run_id:
        client.log_artifact(run_id, str(page), "report")


def metrics_of(evaluations: Sequence[EvaluationRow], speeds: Sequence[SpeedRow]) -> dict[str, float]:
    """Name -> value; a number that is not finite is left out, as MLflow cannot plot it.

    Names of the pruned model are bare, those of any other subject begin with it: `dense_ppl`, `heads20_ppl`.
    """
    found: dict[str, float] = {}
    for row in evaluations:
        prefix = "" if row.subject == "pruned" else f"{row.subject}_"
        found |= {prefix + name: float(getattr(row, name)) for name in MEASURED}
    for timed in speeds:
        prefix = "" if timed.subject == "pruned" else f"{timed.subject}_"
        found[f"{prefix}{timed.phase}_tokens_per_s"] = timed.tokens_per_s
        if timed.subject != "dense":
            found |= {
                f"{prefix}{timed.phase}_speed_ratio": timed.ratio,
                f"{prefix}{timed.phase}_speed_ratio_low": timed.ratio_low,
                f"{prefix}{timed.phase}_speed_ratio_high": timed.ratio_high,
            }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _log_curves(client: "MlflowClient", run_id: str, points: Sequence[tuple[str, float, int]]) -> None:
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    curves = [Metric(name, value, now_ms, step) for name, value, step in points]
    for first in range(0, len(curves), AT_ONCE):
        client.log_batch(run_id, metrics=curves[first : first + AT_ONCE])


@contextmanager
def _open(client: "MlflowClient", run: str, name: str) -> Iterator[str]:
    """MLflow's id of the run with the tag `run`, which is RUNNING and ends with the `with`, in either way."""
    run_id = _find(client, run, name)
    client.update_run(run_id, "RUNNING")
    try:
        yield run_id
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)


def _find(client: "MlflowClient", run: str, name: str) -> str:
    """MLflow's id of the run with the tag `run`, made if it is not there."""
    check_run(run)
    experiment_id = _experiment(client)
    found = client.search_runs([experiment_id], f"tags.run = '{run}'", max_results=1)
    return (found[0] if found else client.create_run(experiment_id, run_name=name, tags={"run": run})).info.run_id


def _end_forsaken(client: "MlflowClient") -> None:
    """End the runs of dead writers: none that lives has a run open, as this process holds the lock."""
    running = client.search_runs([_experiment(client)], "attributes.status = 'RUNNING'")
    if forsaken := {run.data.tags["run"]: run.info.run_id for run in running if "run" in run.data.tags}:
        whole = {row["run"] for row in metrics.query("SELECT run FROM runs")}
        for run, run_id in forsaken.items():
            client.set_terminated(run_id, "FINISHED" if run in whole else "KILLED")


def _experiment(client: "MlflowClient") -> str:
    """MLflow's id of the experiment, made if it is not there."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT, str(home.root() / "mlruns"))
