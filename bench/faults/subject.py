"""The run that faults happen to, a oneshot of stories260K on a few windows, and all that must not depend on them."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.record.metrics import query
from tasks.record.registry.tracking import tracking

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
TEXT = DATA / "text" / "tinystories_train_sample.jsonl"
WORDS = [
    "oneshot", "--model", str(DATA / "models" / "stories260K"), "--pruner", "wanda", "--pattern", "2:4",
    "--calibration", f"{TEXT}[:40]", "--evaluation", f"{TEXT}[40:44]",
    "--samples", "4", "--window", "64", "--no-speed", "--json",
]  # fmt: skip
LONGEST_S = 1800
GO_ON = "what was finished is kept, the same command goes on from there"
FACTS = "select block, linear, zeros, sparsity, error from linears where run = ? order by block, linear"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: its exit code, what it printed, and what it complained of."""

    code: int
    printed: str
    complaint: str

    @property
    def said(self) -> str:
        """The error as a user sees it: the command's last words, or the last line of a traceback."""
        lines = [line for line in self.complaint.splitlines() if line.strip()]
        if "Traceback" in self.complaint or not lines:
            return lines[-1] if lines else ""
        own = [line.removeprefix("espalier: ") for line in lines if line.startswith("espalier: ")]
        return " / ".join(own[-2:] if GO_ON in own[-1:] else own[-1:])

    @property
    def is_clear(self) -> bool:
        """Done, or an error of the command's own words that says how to go on."""
        return self.code == 0 or (self.code in (1, 2) and "Traceback" not in self.complaint)


def start(artifacts: Path, words: Sequence[str] = WORDS, **variables: str) -> subprocess.Popen[str]:
    """The command in a process of its own, and its server's, with the artifacts of this try."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"ESPALIER_ARTIFACTS": str(artifacts), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **variables}
    command = [sys.executable, "-m", "flows.cli", *words]
    pipes: Mapping[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def end(process: subprocess.Popen[str]) -> Ended:
    """Wait for it. Raises subprocess.TimeoutExpired, once it is killed, where it hangs."""
    try:
        printed, complaint = process.communicate(timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Ended(code=process.returncode, printed=printed, complaint=complaint)


def facts(artifacts: Path, ended: Ended) -> dict[str, Any]:
    """What a run has found: its scores, what was zeroed in each linear, and the hashes of the models it has stored."""
    os.environ["ESPALIER_ARTIFACTS"] = str(artifacts)
    outcome = json.loads(ended.printed.splitlines()[-1])
    stored = {name: Path(outcome[name]).name for name in ("checkpoint", "packed")}  # a folder's name is its hash
    return {"dense": outcome["dense"], "result": outcome["result"], **stored, "linears": query(FACTS, [outcome["run"]])}


def make_empty(place: Path) -> None:
    """MLflow's database with nothing in it, which takes long to make."""
    os.environ["ESPALIER_ARTIFACTS"] = str(place)
    with tracking() as client:
        client.search_experiments()
