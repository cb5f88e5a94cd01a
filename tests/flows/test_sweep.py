"""A sweep computes what its points share once, and compares them on one page; the command line runs it for real."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.presets import grid
from flows.sweep import sweep
from tasks.record.metrics import query


def test_points_share_their_stages_and_a_page(
    artifacts: Path, tiny_model: Path, stories: Path, capsys: pytest.CaptureFixture
):
    texts = {"calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]"}
    shared = texts | {"model": str(tiny_model), "samples": 8, "window": 32, "speed": False}
    outcome = sweep(grid("test", ("magnitude", "wanda"), ("50%", "2:4"), **shared))

    told = [line for line in capsys.readouterr().err.splitlines() if " of 4: " in line]
    assert [line.partition(",")[0] for line in told] == [
        "espalier: 1 of 4: magnitude 50%",
        "espalier: 2 of 4: wanda 50%",
        "espalier: 3 of 4: magnitude 2:4",
        "espalier: 4 of 4: wanda 2:4",
    ]
    computed = {
        row["stage"]: row["n"] for row in query("select stage, count(*) as n from stages where not cached group by 1")
    }
    assert computed["prune"] == computed["evaluate pruned"] == 4
    assert computed["evaluate dense"] == computed["tokenize calibration"] == computed["tokenize evaluation"] == 1
    assert query("select distinct sweep, sweep_points from runs") == [{"sweep": outcome.run, "sweep_points": 4}]
    page = Path(outcome.report).read_text(encoding="utf-8")
    assert all(f"{point.result.ppl:.2f}" in page for point in outcome.outcomes)


def test_the_command_prints_json_alone_and_leaves_no_process(tiny_model: Path, stories: Path, tmp_path: Path):
    words = ["oneshot", "--model", tiny_model, "--pruner", "wanda", "--pattern", "2:4", "--no-speed", "--json"]
    words += ["--calibration", f"{stories}[:20]", "--evaluation", f"{stories}[20:]", "--samples", "8", "--window", "32"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment["ESPALIER_ARTIFACTS"] = str(tmp_path)
    command = [sys.executable, "-m", "flows.cli", *map(str, words)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    servers = set()
    while process.poll() is None:
        servers |= {session for session, words in processes_of(tmp_path) if "flows.server" in words}
        time.sleep(0.5)
    printed, complaint = process.communicate()
    assert process.returncode == 0, complaint
    outcome = json.loads(printed)  # one line and nothing else
    assert outcome["result"]["sparsity"] == 0.5
    assert set(outcome["dense"]) == set(outcome["result"])
    assert len(servers) == 1  # one, and never a second in its place
    told, _, table = complaint.partition("| Method")
    assert all(line.startswith("espalier: ") for line in told.splitlines()), complaint  # no bars and no blank lines
    assert "\n\n\n" not in table
    finished = re.findall(r"^espalier: (.*): [\d.]+ s$", told, re.MULTILINE)
    texts, models = ["tokenize calibration", "tokenize evaluation"], ["evaluate dense", "evaluate pruned"]
    assert finished == [*texts, "prune", "pack", *models]
    give_up = time.monotonic() + 120
    while processes_of(tmp_path) and time.monotonic() < give_up:
        time.sleep(0.2)
    assert processes_of(tmp_path) == []


def processes_of(artifacts: Path) -> list[tuple[int, list[str]]]:
    """The sessions and the commands of the processes whose environment names these artifacts.

    A process that is just being started has the command of the one that starts it, and its session.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"ESPALIER_ARTIFACTS={artifacts}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((os.getsid(int(process.name)), (process / "cmdline").read_text().split("\0")))
        except OSError:
            continue
    return found
