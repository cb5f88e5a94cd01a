"""How long it takes to switch a model between its profiles."""

import random
import statistics
import time
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
    if switches < 1:
        raise ValueError(f"switches: {switches} given, valid is 1 or more")
    if len(profiles.names) < 2:
        raise ValueError("profiles: none but the model itself given, valid is one or more to switch to")
    chosen, before, times_ms = random.Random(seed), profiles.active, []
    for _ in range(switches):
        name = chosen.choice([name for name in profiles.names if name != profiles.active])
        started = time.perf_counter_ns()
        profiles.switch(name)
        times_ms.append((time.perf_counter_ns() - started) / 1e6)
    profiles.switch(before)
    return SwitchingTime(switches=switches, median_ms=statistics.median(times_ms), worst_ms=max(times_ms))
