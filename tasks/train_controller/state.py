"""The machine as it is now: how busy it is, and what it has left.

What is read, and what bounds it to 0 to 1:
    cpu_use          time not idle over all time of all cores since the look before; at first, since the machine started
    memory_free      what programs can still get without swapping, over all memory
    gpu_use          share of the last sample period, at most a second, in which a kernel ran (NVML)
    gpu_memory_free  free memory of the GPU over all of it (NVML)
    has_gpu          1 where NVML knows the GPU, else 0, and so are the two above
    battery          its charge; 1 on mains and where there is none

NVML is asked through pynvml, where that is installed. It asks the driver and leaves CUDA as it is.
"""

import time
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from tasks.train_controller.observation import Hardware

LOOK_EVERY = 0.1  # seconds; the system counts time in hundredths, so that less says little
IDLE = ("idle", "iowait")
COUNTED_TWICE = ("guest", "guest_nice")  # Linux has them in user and nice too


class HardwareReader:
    """Reads the machine at once: nothing waits for a sample.

    `gpu`: the number by which NVML knows it. `nvml`: a module such as pynvml, which is taken where it is installed.
    """

    def __init__(self, *, gpu: int = 0, nvml: Any = None) -> None:
        import psutil

        self._system = psutil
        self._nvml = import_module("pynvml") if nvml is None and find_spec("pynvml") else nvml
        self._gpu = _handle(self._nvml, gpu)
        self._looked, self._times = time.monotonic(), psutil.cpu_times()._asdict()
        self._cpu_use = busy_share({}, self._times)

    def read(self) -> Hardware:
        """The state of the machine; `cpu_use` is as before where the last look was less than LOOK_EVERY ago."""
        if time.monotonic() - self._looked >= LOOK_EVERY:
            before, self._looked, self._times = self._times, time.monotonic(), self._system.cpu_times()._asdict()
            self._cpu_use = busy_share(before, self._times)
        memory = self._system.virtual_memory()
        battery = self._system.sensors_battery() if hasattr(self._system, "sensors_battery") else None
        return Hardware(
            cpu_use=self._cpu_use,
            memory_free=_share(memory.available, memory.total),
            battery=1.0 if battery is None else charge(battery.percent, bool(battery.power_plugged)),
            **self._of_gpu(),
        )

    def _of_gpu(self) -> dict[str, float]:
        """Nothing where there is none; a use that the driver does not tell, as that of a part of a GPU, is 0."""
        if self._gpu is None:
            return {}
        memory = self._nvml.nvmlDeviceGetMemoryInfo(self._gpu)
        try:
            use = self._nvml.nvmlDeviceGetUtilizationRates(self._gpu).gpu
        except self._nvml.NVMLError_NotSupported:
            use = 0
        return {"has_gpu": 1.0, "gpu_use": _share(use, 100), "gpu_memory_free": _share(memory.free, memory.total)}


def busy_share(before: Mapping[str, float], now: Mapping[str, float]) -> float:
    """The share of the time between that cores were at work; times by what they were spent on, as psutil has them."""
    spent = {name: now[name] - before.get(name, 0.0) for name in now if name not in COUNTED_TWICE}
    total = sum(spent.values())
    return _share(total - sum(spent.get(name, 0.0) for name in IDLE), total)


def charge(percent: float, plugged: bool) -> float:
    """Of a battery, which does not matter on mains."""
    return 1.0 if plugged else _share(percent, 100)


def _handle(nvml: Any, gpu: int) -> Any:
    """None without NVML, its driver or this GPU."""
    if nvml is None:
        return None
    try:
        nvml.nvmlInit()
        return nvml.nvmlDeviceGetHandleByIndex(gpu)
    except nvml.NVMLError:
        return None


def _share(part: float, whole: float) -> float:
    return min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0
