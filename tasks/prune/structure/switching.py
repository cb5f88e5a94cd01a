"""How long it takes to switch a model between its profiles."""

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.prune.structure.profiles import Profiles


@dataclass(frozen=True, kw_only=True)
class SwitchingTime:
    """Of `switches` switches, each from one profile to another, in milliseconds."""

    switches: int
    median_ms: float
    worst_ms: float


def switching_time(profiles: Profiles, switches: int = 100, seed: int = 0) -> SwitchingTime:
    """Switch to and fro at random, and then back. Nothing is computed, so that no device has to be waited for.

    Raises ValueError for fewer than one switch, and where there is nothing to switch to.
    """
    return _summed([taken_ms for _, taken_ms in _switches(profiles, switches, seed)])


def switching_times(profiles: Profiles, switches: int = 100, seed: int = 0) -> dict[str, SwitchingTime]:
    """As `switching_time`, by the profile that is switched to: of each there are `switches`, but for chance."""
    times_ms: dict[str, list[float]] = {}
    for name, taken_ms in _switches(profiles, switches * len(profiles.names), seed):
        times_ms.setdefault(name, []).append(taken_ms)
    return {name: _summed(times_ms[name]) for name in profiles.names if name in times_ms}


def _switches(profiles: Profiles, switches: int, seed: int) -> list[tuple[str, float]]:
    """The profile and the milliseconds of each switch."""
    if switches < 1:
        raise ValueError(f"switches: {switches} given, valid is 1 or more")
    if len(profiles.names) < 2:
        raise ValueError("profiles: none but the model itself given, valid is one or more to switch to")
    chosen, before, times_ms = random.Random(seed), profiles.active, []
    for _ in range(switches):
        name = chosen.choice([name for name in profiles.names if name != profiles.active])
        started = time.perf_counter_ns()
        profiles.switch(name)
        times_ms.append((name, (time.perf_counter_ns() - started) / 1e6))
    profiles.switch(before)
    return times_ms


def _summed(times_ms: Sequence[float]) -> SwitchingTime:
    return SwitchingTime(switches=len(times_ms), median_ms=statistics.median(times_ms), worst_ms=max(times_ms))
