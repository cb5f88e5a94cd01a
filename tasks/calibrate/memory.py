"""Memory of this process: how much it may still take, and giving back what it no longer uses."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
MEMBERSHIP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
LIMIT_FILES = (("memory.max", "anon"), ("memory.limit_in_bytes", "total_rss"))  # of version 2 and 1, with what is used


def free_bytes() -> int:
    """What the machine has left, or this process's control group, if that is less; half of the memory if neither says.

    Files that the kernel caches do not count as taken.
    """
    if not MEMINFO.is_file():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    return min([available, *_left_in_groups()])


def give_back() -> None:
    """Return what was freed to the system. The allocator of glibc keeps some of it: 50 MB a block, for good."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def _left_in_groups() -> Iterator[int]:
    """What is left of each limit on the way from this process's control group up to the root."""
    for line in MEMBERSHIP.read_text().splitlines() if MEMBERSHIP.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = GROUPS / controllers
        own = root / path.lstrip("/")
        for group in (own, *own.parents):
            if group.is_relative_to(root):
                yield from _left_in(group)


def _left_in(group: Path) -> Iterator[int]:
    for limit_file, used in LIMIT_FILES:
        if (group / limit_file).is_file():
            limit = (group / limit_file).read_text().strip()
            counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            if limit != "max":
                yield max(0, int(limit) - int(counts[used]))
