"""Killed at any moment, a run resumes with the same command and ends with the same bytes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORDS = [
    "oneshot",
    "--pruner",
    "sparsegpt",
    "--pattern",
    "2:4",
    "--samples",
    "16",
    "--window",
    "128",
    "--no-speed",
    "--json",
]
EXACT = "select block, linear, zeros, error from linears where run = '{run}' order by block, linear"


def start(artifacts: Path, words: list[str]) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment["ESPALIER_ARTIFACTS"] = str(artifacts)
    command = [sys.executable, "-m", "flows.cli", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(artifacts: Path) -> dict:
    """Run to the end; everything of the outcome that must not depend on a kill."""
    process = start(artifacts, WORDS)
    printed, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint
    outcome = json.loads(printed.splitlines()[-1])
    rows, _ = start(artifacts, ["sql", EXACT.format(run=outcome["run"])]).communicate(timeout=60)
    weights = {name: Path(outcome[name]).name for name in ("checkpoint", "packed")}  # a folder's name is its hash
    return {"dense": outcome["dense"], "result": outcome["result"], "linears": rows, **weights}


def kill_then_finish(artifacts: Path, after_s: float) -> dict:
    process = start(artifacts, WORDS)
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return finish(artifacts)


@pytest.mark.slow
def test_twenty_kills_at_random_moments_leave_no_trace(tmp_path: Path):
    started = time.monotonic()
    undisturbed = finish(tmp_path / "undisturbed")
    lasted = time.monotonic() - started
    moments = random.Random(0)
    for number in range(20):
        after_s = moments.uniform(0.2, lasted)
        assert kill_then_finish(tmp_path / f"killed-{number}", after_s) == undisturbed, f"killed after {after_s:.2f} s"
    time.sleep(1)
    assert not left_behind(tmp_path), "a killed run left its server behind"


def left_behind(folder: Path) -> list[str]:
    """Processes whose environment still names the artifacts of this test."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"ESPALIER_ARTIFACTS={folder}".encode() in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found
