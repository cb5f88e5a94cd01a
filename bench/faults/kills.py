"""SIGKILL at a random moment: of the command, of the Prefect server that it has started, of both."""

import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

from bench.faults.subject import end, start
from bench.faults.tries import Try, judged


def kill_flow(of: Try) -> dict[str, Any]:
    return _killed(of, lambda run: run.send_signal(signal.SIGKILL))


def kill_server(of: Try) -> dict[str, Any]:
    return _killed(of, lambda run: _kill(_server_of(run)))


def kill_both(of: Try) -> dict[str, Any]:
    def both(run: subprocess.Popen[str]) -> None:
        server = _server_of(run)
        run.send_signal(signal.SIGKILL)
        _kill(server)

    return _killed(of, both)


def _killed(of: Try, kill: Any) -> dict[str, Any]:
    after_s = random.Random(of.number).uniform(0.2, of.lasted_s)
    run = start(of.artifacts)
    try:
        run.wait(timeout=after_s)
    except subprocess.TimeoutExpired:
        kill(run)
    first = end(run)
    time.sleep(0.5)  # for what the kernel has to tell the server
    left = left_behind(of.artifacts)
    return judged(of, first) | {"after_s": round(after_s, 2), "left_behind": len(left)}


def _server_of(run: subprocess.Popen[str]) -> psutil.Process | None:
    children = psutil.Process(run.pid).children()
    return next((child for child in children if "flows.server" in child.cmdline()), None)


def _kill(process: psutil.Process | None) -> None:
    if process is not None:
        process.kill()


def left_behind(artifacts: Path) -> list[int]:
    """Processes that still work for the artifacts of this try."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("ESPALIER_ARTIFACTS") == str(artifacts) and process.pid != psutil.Process().pid:
                found.append(process.pid)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found
