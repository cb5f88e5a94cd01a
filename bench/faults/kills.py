"""SIGKILL at a random moment: of the command, of the Prefect server that it has started, of both."""

import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from bench.faults.subject import end, start
from bench.faults.tries import Try, judged

LINES = 8  # that a whole run says on its way: where it can be watched, six stages, how many came from the cache
GONE_S = 30  # in which a server has noticed that its command is gone, and ended


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


def _killed(of: Try, kill: Callable[[subprocess.Popen[str]], None]) -> dict[str, Any]:
    """The moment is counted in what the run has said, since a busy machine makes one run twice as long as another."""
    chance = random.Random(f"{of.fault} {of.number}")
    lines, then_s = chance.randrange(LINES), chance.uniform(0, of.lasted_s / LINES)
    run = start(of.artifacts)
    assert run.stderr is not None
    said = "".join(line for _, line in zip(range(lines), run.stderr, strict=False))
    try:
        run.wait(timeout=then_s)
    except subprocess.TimeoutExpired:
        kill(run)
    first = end(run)
    first = replace(first, complaint=said + first.complaint)
    give_up = time.monotonic() + GONE_S
    while (left := left_behind(of.artifacts)) and time.monotonic() < give_up:
        time.sleep(0.5)
    return judged(of, first) | {"after_lines": lines, "then_s": round(then_s, 2), "left_behind": len(left)}


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
