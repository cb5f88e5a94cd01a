"""A machine that is put under load: the state of a decision shows it, and so do the times that are measured.

Slow: processes burn a core for seconds, on purpose beside what is timed.
"""

import mmap
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from tasks.model.load import BUILTIN
from tasks.train_controller.act.answers import Answer
from tasks.train_controller.runtime import Controller
from tasks.train_controller.state import LOOK_EVERY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound to a core here"),
]
BURN = "import sys\nprint('burning', flush=True)\nwhile not sys.stdin.closed: sum(range(10_000))"
PROMPT = "The function returns a list of"


@pytest.fixture
def cores() -> list[int]:
    """Those that this process may run on."""
    return sorted(os.sched_getaffinity(0))


@pytest.fixture
def controller(cores: list[int]) -> Iterator[Controller]:
    """On the first of the cores alone."""
    os.sched_setaffinity(0, cores[:1])
    try:
        yield Controller.load(BUILTIN)
    finally:
        os.sched_setaffinity(0, cores)


@contextmanager
def busy(cores: list[int]) -> Iterator[None]:
    """A process at work on each of the cores."""
    with ExitStack() as running:
        for core in cores:
            each = running.enter_context(
                subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            running.callback(each.kill)
            os.sched_setaffinity(each.pid, {core})
            assert each.stdout is not None
            assert each.stdout.readline() == "burning\n"
        yield


def answers(controller: Controller, number: int = 8) -> list[Answer]:
    time.sleep(1.5 * LOOK_EVERY)
    controller.answer(PROMPT, new_tokens=8)
    time.sleep(1.5 * LOOK_EVERY)
    return [controller.answer(PROMPT, new_tokens=24, ignore_stops=True) for _ in range(number)]


def middle(found: list[Answer], field: str) -> float:
    return statistics.median(getattr(answer, field) for answer in found)


def cpu_use(found: list[Answer]) -> float:
    return statistics.median(answer.decision.observation.hardware.cpu_use for answer in found[1:])


def test_busy_processes_are_seen_and_make_answers_slow(controller: Controller, cores: list[int]):
    calm = answers(controller)
    with busy([*cores, cores[0], cores[0]]):  # so that four share what the controller had for itself
        loaded = answers(controller)
    assert middle(loaded, "decode_ms") > 1.5 * middle(calm, "decode_ms")
    assert middle(loaded, "tokens_per_s") < middle(calm, "tokens_per_s") / 1.5
    assert cpu_use(loaded) > 0.85 * len(cores) / psutil.cpu_count()
    assert cpu_use(loaded) > cpu_use(calm) - 0.05  # others may have kept all cores busy before


def test_memory_that_is_taken_is_in_the_state_of_the_next_decision(controller: Controller):
    memory = psutil.virtual_memory()
    size = min(memory.available // 4, 1 << 30)
    calm = answers(controller, 2)
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as taken:
        taken[:: mmap.PAGESIZE] = bytes(size // mmap.PAGESIZE)
        pressed = answers(controller, 2)
    free = [each[-1].decision.observation.hardware.memory_free for each in (calm, pressed)]
    assert free[0] - free[1] > 0.4 * size / memory.total
    assert pressed[-1].text == calm[-1].text
