"""What of the safetensors files is in this process's memory now."""

from pathlib import Path

import pytest

SMAPS = Path("/proc/self/smaps")
needs_smaps = pytest.mark.skipif(not SMAPS.is_file(), reason="the kernel does not say what is in memory")


def mapped_pages() -> int:
    """Bytes."""
    resident, counts = 0, False
    for line in SMAPS.read_text().splitlines():
        if line[0] in "0123456789abcdef" and "-" in line.split()[0]:
            counts = line.endswith(".safetensors")
        elif counts and line.startswith("Rss:"):
            resident += int(line.split()[1]) * 1024
    return resident
