"""How much memory this process holds, and has held at its highest. Linux keeps that peak, and lets it be set back."""

from pathlib import Path

PROCESS = Path("/proc/self")


def forget_peak() -> bool:
    """From now on the peak is what is held from now on; False where the system keeps none that can be set back."""
    try:
        (PROCESS / "clear_refs").write_text("5")  # "reset the peak resident set size", proc_pid_clear_refs(5)
    except OSError:
        return False
    return True


def resident_bytes(field: str) -> int:
    """`VmRSS` (now) or `VmHWM` (peak since `forget_peak`) of this process, all threads together. Linux."""
    lines = (PROCESS / "status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(kilobytes) * 1024
