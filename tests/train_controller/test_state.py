"""The machine as the reader sees it: bounded, right about what is put upon it, and about a GPU that a driver tells."""

import mmap
import subprocess
import sys
import time
from dataclasses import astuple, dataclass
from types import SimpleNamespace

import psutil
import pytest
import torch

from tasks.train_controller import state
from tasks.train_controller.nvml import GPUState
from tasks.train_controller.state import LOOK_EVERY, HardwareReader, busy_share, charge

BURN = "import time\nend = time.monotonic() + 1.2\nwhile time.monotonic() < end: pass\nprint(time.process_time())"


@dataclass(frozen=True)
class Card:
    """A GPU in a certain state."""

    used: float = 0.3
    free: int = 60
    total: int = 80

    def state(self):
        return GPUState(used=self.used, free_bytes=self.free, total_bytes=self.total)


def test_every_value_is_a_share():
    reader = HardwareReader(gpu=Card())
    for _ in range(5):
        assert all(0 <= value <= 1 for value in astuple(reader.read()))


def test_load_on_the_cores_is_seen():
    cores = psutil.cpu_count()
    reader = HardwareReader()
    time.sleep(1.5 * LOOK_EVERY)
    reader.read()
    started = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", BURN], stdout=subprocess.PIPE, text=True) as burner:
        burnt = float(burner.communicate(timeout=60)[0])
    share = burnt / (time.monotonic() - started) / cores
    assert reader.read().cpu_use >= 0.9 * share - 0.02  # what was burnt was time at work, beside that of others


def fall_of_free_memory(reader, size):
    """By how much the free share falls while `size` bytes are taken."""
    before = reader.read().memory_free
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as taken:
        taken[:: mmap.PAGESIZE] = bytes(size // mmap.PAGESIZE)  # a page is there once it is written
        return before - reader.read().memory_free


def test_memory_that_is_taken_is_seen():
    size, memory = 320 * 2**20, psutil.virtual_memory()
    if memory.available < 4 * size:
        pytest.skip("little memory is free")
    reader = HardwareReader()
    tries = (fall_of_free_memory(reader, size) for _ in range(60))  # others take and give back meanwhile
    assert any(0.6 < fall * memory.total / size < 1.4 for fall in tries)


def test_a_share_is_that_of_the_time_between():
    before = {"user": 100.0, "system": 20.0, "idle": 500.0, "iowait": 5.0, "guest": 9.0}
    now = {"user": 103.0, "system": 21.0, "idle": 504.0, "iowait": 7.0, "guest": 12.0}
    assert busy_share(before, now) == pytest.approx((3 + 1) / (3 + 1 + 4 + 2))
    assert busy_share({}, before) == pytest.approx((100 + 20) / (100 + 20 + 500 + 5))
    assert busy_share(before, before) == 0.0
    assert busy_share(before, {**before, "iowait": 4.0, "user": 101.0}) == 0.0  # a counter that Linux may turn back
    assert busy_share({"user": 1.0, "idle": 1.0}, {"user": 5.0, "idle": 1.0}) == 1.0


def test_looks_that_lie_close_are_one(monkeypatch):
    clock, looks = [0.0], []
    monkeypatch.setattr(state.time, "monotonic", lambda: clock[0])
    reader = HardwareReader()
    monkeypatch.setattr(psutil, "cpu_times", lambda times=psutil.cpu_times: looks.append(clock[0]) or times())
    for clock[0] in (0.5 * LOOK_EVERY, LOOK_EVERY, 1.5 * LOOK_EVERY, 1.9 * LOOK_EVERY, 2.5 * LOOK_EVERY):
        reader.read()
    assert looks == [LOOK_EVERY, 2.5 * LOOK_EVERY]


@pytest.mark.parametrize(
    ("percent", "plugged", "share"), [(40, False, 0.4), (40, True, 1.0), (0, False, 0.0), (101, False, 1.0)]
)
def test_a_battery_matters_where_there_are_no_mains(percent, plugged, share):
    assert charge(percent, plugged) == share


def test_a_machine_without_a_battery_is_on_mains(monkeypatch):
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)
    assert HardwareReader().read().battery == 1.0
    monkeypatch.setattr(psutil, "sensors_battery", lambda: SimpleNamespace(percent=25.0, power_plugged=None))
    assert HardwareReader().read().battery == 0.25
    monkeypatch.delattr(psutil, "sensors_battery")
    assert HardwareReader().read().battery == 1.0


@pytest.mark.parametrize(
    ("card", "seen"),
    [
        (Card(), (1.0, 0.3, 0.75)),
        (Card(used=0.0, free=20), (1.0, 0.0, 0.25)),
        (Card(used=1.01, free=81), (1.0, 1.0, 1.0)),
        (Card(total=0), (1.0, 0.3, 0.0)),
    ],
)
def test_a_gpu_is_what_the_driver_tells_of_it(card, seen):
    found = HardwareReader(gpu=card).read()
    assert (found.has_gpu, found.gpu_use, found.gpu_memory_free) == seen


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_absent_gpu_is_zero():
    seen = HardwareReader().read()
    assert (seen.has_gpu, seen.gpu_use, seen.gpu_memory_free) == (0.0, 0.0, 0.0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_real_gpu_is_read_and_cuda_stays_as_it_is():
    code = (
        "import torch; from tasks.train_controller.state import HardwareReader; seen = HardwareReader().read(); "
        "print(seen.has_gpu, 0 < seen.gpu_memory_free <= 1, torch.cuda.is_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "1.0 True False", done.stderr
