"""Where a number was made: the versions and the machine that every stored row carries, as JSON with sorted keys."""

import importlib.metadata
import json
import os
import platform
from functools import cache
from pathlib import Path

PACKAGES = ("espalier", "torch", "transformers", "numpy")


@cache
def versions() -> str:
    """JSON: "python" and each package that computes -> its version."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return json.dumps({"python": platform.python_version()} | found, sort_keys=True)


@cache
def machine() -> str:
    """JSON: platform, processor, cores this process may use, memory_bytes, and the name of the GPU or "none"."""
    import torch

    facts = {
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }
    return json.dumps(facts, sort_keys=True)


def versions_in_words(stored: str) -> str:
    """What `versions` gave, for a reader."""
    return ", ".join(f"{package} {version}" for package, version in json.loads(stored).items())


def machine_in_words(stored: str) -> str:
    """What `machine` gave, for a reader."""
    facts = json.loads(stored)
    memory = f"{facts['memory_bytes'] / 1e9:.0f} GB"
    return f"{facts['processor']}, {facts['cores']} cores, {memory}, GPU: {facts['gpu']}, {facts['platform']}"


def _processor() -> str:
    """The processor's model name; `platform.processor()` is empty or only an architecture on most Linux systems."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
