"""A failed run is retried from Prefect's interface and from its command line, and goes on from what was finished."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun

from flows.operating import POOL, make_pool
from tasks.record.metrics import query

ROOT = Path(__file__).parents[2]
DONE_BEFORE = {"tokenize calibration": True, "tokenize evaluation": True, "prune": True}


@pytest.fixture
def client(artifacts: Path) -> SyncPrefectClient:
    with get_client(sync_client=True) as client:
        make_pool(client, None)
        yield client


def prefect(artifacts: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return start(artifacts, "prefect", "--no-prompt", *words)


def start(artifacts: Path, module: str, *words: str) -> subprocess.CompletedProcess[str]:
    places = {"ESPALIER_PROJECT": str(ROOT), "PREFECT_LOCAL_STORAGE_PATH": str(artifacts / "results")}
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, cwd=ROOT, env=os.environ | places, capture_output=True, text=True, timeout=400)


def work(artifacts: Path, client: SyncPrefectClient, run: UUID) -> FlowRun:
    """Let a worker do what is waiting; the run as it is then."""
    done = prefect(artifacts, "worker", "start", "--pool", POOL, "--run-once")
    assert done.returncode == 0, done.stdout + done.stderr
    return client.read_flow_run(run)


def obstruct(artifacts: Path) -> Path:
    """A file where the packed models are to go."""
    (artifacts / "store").mkdir(parents=True, exist_ok=True)
    (artifacts / "store" / "packed").touch()
    return artifacts / "store" / "packed"


def words_of(tiny_model: Path, stories: Path) -> dict:
    texts = {"calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]", "samples": 4, "window": 32}
    return {"model": str(tiny_model), "pruner": {"method": "wanda"}, "pattern": "2:4", "speed": False} | texts


def from_the_cache(run: str) -> dict[str, bool]:
    return {row["stage"]: row["cached"] for row in query("select stage, cached from stages where run = ?", [run])}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["interface", "command line"])
def test_a_failed_run_of_a_deployment_goes_on(
    place: str, server: str, client: SyncPrefectClient, artifacts: Path, tiny_model: Path, stories: Path
):
    assert prefect(artifacts, "deploy", "--name", "oneshot").returncode == 0
    obstacle = obstruct(artifacts)
    deployment = client.read_deployment_by_name("oneshot/oneshot")
    parameters = {"parameters": words_of(tiny_model, stories)}
    run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id
    failed = work(artifacts, client, run)
    assert failed.state.is_failed()
    assert "stage pack" in failed.state.message
    obstacle.unlink()
    if place == "interface":  # what its button sends
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
        answer = httpx.post(
            f"{server}/api/flow_runs/{run}/set_state", json={"state": state}, headers={"Origin": server}
        )
        assert answer.json()["status"] == "ACCEPT", answer.text
    else:
        retried = prefect(artifacts, "flow-run", "retry", str(run))
        assert retried.returncode == 0, retried.stdout
    finished = work(artifacts, client, run)
    assert finished.state.is_completed(), finished.state.message
    stages = from_the_cache(finished.name)
    assert {name: stages[name] for name in DONE_BEFORE} == DONE_BEFORE
    assert stages["pack"] is False


@pytest.mark.slow
def test_a_failed_run_of_a_command_goes_on(
    client: SyncPrefectClient, artifacts: Path, tiny_model: Path, stories: Path, server: str
):
    obstacle = obstruct(artifacts)
    given = words_of(tiny_model, stories) | {"pruner": "wanda"}
    words = [word for name, value in given.items() if name != "speed" for word in (f"--{name}", str(value))]
    assert start(artifacts, "flows.cli", "oneshot", *words, "--no-speed").returncode == 1
    (failed,) = [run for run in client.read_flow_runs() if run.state.is_failed()]
    obstacle.unlink()
    retried = prefect(artifacts, "flow-run", "retry", failed.name, "--entrypoint", "flows/oneshot.py:oneshot")
    assert retried.returncode == 0, retried.stdout + retried.stderr
    finished = client.read_flow_run(failed.id)
    assert finished.state.is_completed()
    stages = from_the_cache(finished.name)
    assert {name: stages[name] for name in DONE_BEFORE} == DONE_BEFORE
