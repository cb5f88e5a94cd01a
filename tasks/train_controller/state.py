"""The machine as it is now: how busy it is, and what it has left.

What is read, and what bounds it to 0 to 1:
    cpu_use          time not idle over all time of all cores since the look before; at first, since the machine started
    memory_free      what programs can still get without swapping, over all memory
    gpu_use          share of the last sample period, at most a second, in which a kernel ran (NVML)
    gpu_memory_free  free memory of the GPU over all of it (NVML)
    has_gpu          1 where the driver knows the GPU, else 0, and so are the two above
    battery          its charge; 1 on mains and where there is none
"""

import time
from collections.abc import Mapping

from tasks.train_controller.nvml import GPU
from tasks.train_controller.observation import Hardware

LOOK_EVERY = 0.1  # seconds; the system counts time in hundredths, so that less says little
IDLE = ("idle", "iowait")
COUNTED_TWICE = ("guest", "guest_nice")  # Linux has them in user and nice too


class HardwareReader:
    """Reads the machine at once: nothing waits for a sample.

    `device`: on which the model runs; the GPU that is read is that one. `gpu`: another, or a stand-in.
    """

    def __init__(self, device: str = "cpu", *, gpu: GPU | None = None) -> None:
        import psutil

        self._system = psutil
        self._gpu = gpu or GPU.find(device)
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
        """Nothing where there is none."""
        if self._gpu is None:
            return {}
        seen = self._gpu.state()
        free = _share(seen.free_bytes, seen.total_bytes)
        return {"has_gpu": 1.0, "gpu_use": _share(seen.used, 1), "gpu_memory_free": free}


def busy_share(before: Mapping[str, float], now: Mapping[str, float]) -> float:
    """The share of the time between that cores were at work; times by what they were spent on, as psutil has them."""
    spent = {name: now[name] - before.get(name, 0.0) for name in now if name not in COUNTED_TWICE}
    total = sum(spent.values())
    return _share(total - sum(spent.get(name, 0.0) for name in IDLE), total)


def charge(percent: float, plugged: bool) -> float:
    """Of a battery, which does not matter on mains."""
    return 1.0 if plugged else _share(percent, 100)


def _share(part: float, whole: float) -> float:
    return min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0
