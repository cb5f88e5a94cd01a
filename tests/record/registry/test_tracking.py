"""Runs in MLflow: logged once, and never left open, however their writer ends."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.handles import Checkpoint
from tasks.record import home, metrics
from tasks.record.registry import tracking, versions
from tests.record.plausible import CONTEXT, evaluation, finish, record_run, speed
from tests.record.publishing import publish, stub

pytestmark = pytest.mark.usefixtures("database")


def statuses() -> dict[str, str]:
    """The runs in MLflow: name -> how far it says each is."""
    with tracking.tracking() as client:
        experiment = client.get_experiment_by_name("espalier")
        return {run.data.tags["run"]: run.info.status for run in client.search_runs([experiment.experiment_id])}


class Killed(BaseException):
    """Stands for what no `except Exception` catches."""


@pytest.mark.parametrize(("moment", "status"), [("log_batch", "FAILED"), ("set_terminated", "FINISHED")])
def test_a_writer_that_ends_early_leaves_no_run_open(moment, status, monkeypatch):
    def end(*_, **__):
        raise Killed

    def log(run: str) -> None:
        of_run = dataclasses.replace(CONTEXT, run=run)
        with tracking.log_run(of_run, parameters={}, evaluations=[evaluation("dense"), evaluation()]):
            finish(of_run)

    with monkeypatch.context() as patch:
        patch.setattr(f"mlflow.MlflowClient.{moment}", end)
        with pytest.raises(Killed):
            log("r1")
    log("r2")
    assert statuses() == {"r1": status, "r2": "FINISHED"}
    log("r1")
    assert statuses() == {"r1": "FINISHED", "r2": "FINISHED"}


PUBLISHED_THEN_KILLED = """
import os, signal, sys
from tests.record.plausible import CONTEXT, evaluation, finish
from tasks.handles import Checkpoint
from tasks.record.registry import tracking, versions
with tracking.log_run(CONTEXT, parameters={}, evaluations=[evaluation("dense"), evaluation()], sweep="s1") as logged:
    client, run_id = logged
    versions.publish(client, CONTEXT, Checkpoint(hash=sys.argv[1], folder=sys.argv[2]), evaluation(), run_id)
    if sys.argv[3] == "recorded":
        finish(sweep="s1")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("until", "rows", "status"), [("published", 0, "KILLED"), ("recorded", 1, "FINISHED")])
def test_a_killed_run_is_finished_only_where_its_row_is_written(until, rows, status):
    packed = stub("killed")
    places = [str(Path(__file__).parents[1]), str(Path(versions.__file__).parents[3])]
    command = [sys.executable, "-c", PUBLISHED_THEN_KILLED, packed.hash, packed.folder, until]
    killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(places)}, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert statuses() == {"r1": "RUNNING", "s1": "SCHEDULED"}
    assert len(metrics.query("SELECT run FROM runs")) == rows

    again = publish("r2", packed)
    assert again.version == "1"  # what was registered is whole, and is not registered again
    assert statuses() == {"r1": status, "s1": "SCHEDULED", "r2": "FINISHED"}


def test_what_a_run_raises_after_it_was_logged_fails_it():
    with pytest.raises(home.Damaged):
        publish("r1", Checkpoint(hash="0" * 64, folder="store/packed/none", kind="packed"))
    assert statuses() == {"r1": "FAILED"}


def test_a_run_with_a_quote_is_refused():
    with pytest.raises(ValueError, match=r"run: .* must be letters, digits"):
        tracking.attach_report("it's", Path("index.html"))


def test_a_run_is_logged_once_under_its_sweep_with_what_the_interface_compares(artifacts):
    speeds = [speed("dense", "decode", 1.0, 1.0, 1.0, "reference"), speed("pruned", "decode", 1.1, 1.0, 1.2, "no gain")]
    rows = [evaluation("dense"), evaluation(ppl=float("inf"))]
    for _ in range(2):
        facts = {"parameters": {"samples": 64}, "evaluations": rows, "speeds": speeds}
        with tracking.log_run(CONTEXT, **facts, sweep="s1") as (client, logged):
            assert client.get_run(logged).info.status == "RUNNING"
        assert statuses() == {"r1": "FINISHED", "s1": "SCHEDULED"}
    page = artifacts / "index.html"
    page.write_text("a page")
    tracking.attach_report("s1", page)
    with tracking.tracking() as client:
        experiment = client.get_experiment_by_name("espalier")
        runs = {run.data.tags["run"]: run for run in client.search_runs([experiment.experiment_id])}
        assert runs.keys() == {"r1", "s1"}
        run = runs["r1"]
        assert run.info.run_id == logged
        assert run.data.tags["mlflow.parentRunId"] == runs["s1"].info.run_id
        assert {of.info.status for of in runs.values()} == {"FINISHED"}
        assert [file.path for file in client.list_artifacts(runs["s1"].info.run_id, "report")] == ["report/index.html"]
    wanted = {"method": "wanda", "pattern": "2:4", "seed": "0", "model": "stories", "samples": "64"}
    assert run.data.params == wanted
    assert "ppl" not in run.data.metrics  # it is not finite
    assert run.data.metrics["dense_ppl"] == rows[0].ppl
    assert run.data.metrics["sparsity"] == 0.5
    assert run.data.metrics["decode_speed_ratio_high"] == 1.2


def test_what_the_interface_draws_comes_from_the_rows():
    facts = {"parameters": {"pruner": {"method": "sparsegpt", "damp": 0.01}}, "evaluations": [evaluation("dense")]}
    for _ in range(2):  # logged again, it is there once
        with tracking.log_run(CONTEXT, **facts) as (client, logged):
            record_run()
    run = client.get_run(logged)
    assert {"pruner.method": "sparsegpt", "pruner.damp": "0.01"}.items() <= run.data.params.items()
    error = {point.step: point.value for point in client.get_metric_history(logged, "block_error")}
    assert error == {row["block"]: row["error"] for row in metrics.query("SELECT block, error FROM blocks")}
    assert run.data.metrics["seconds"] == 12.5
    assert "espalier oneshot --pruner wanda" in run.data.tags["mlflow.note.content"]
    texts = {each.tags[0].value: each.dataset.digest for each in run.inputs.dataset_inputs}
    assert texts == {"calibration": "b" * 36, "evaluation": "d" * 36}


def test_a_damaged_database_is_one_line_that_names_it(artifacts, capfd):
    with tracking.log_run(CONTEXT, parameters={}, evaluations=[]):
        pass
    database = artifacts / "mlflow.db"
    database.write_bytes(b"this is no database\n" * 1000)
    with pytest.raises(RuntimeError) as error, tracking.log_run(CONTEXT, parameters={}, evaluations=[]):
        pass
    assert str(error.value) == f"MLflow's database {database} cannot be used: file is not a database"
    assert capfd.readouterr().err == ""  # it would log the whole statement
