"""Comparing several ways to compute one thing on a machine that is not quiet.

The sides take turns in one process, A B, B A, A B …, so that what slows the machine down for a while slows all of them
down. Each round gives one ratio of two sides; the interval is that of the mean of the logarithms of these ratios.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy import stats

CONFIDENCE = 0.95

Sides = dict[str, Callable[[], object]]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times longer one side takes than the other: the geometric mean over rounds, and its interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


def interleave(
    sides: Sides, rounds: int, prepare: Callable[[], object] = lambda: None, calls: int = 1
) -> dict[str, list[float]]:
    """Wall times in seconds of each side, round by round; every second round goes through the sides backwards.

    `prepare` runs before each measurement and is not timed. A measurement is the mean of `calls` calls in a row.
    Nothing is warmed up here: call every side once before.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides) if number % 2 == 0 else reversed(sides):
            prepare()
            times[name].append(seconds(sides[name], calls))
    return times


def seconds(call: Callable[[], object], calls: int = 1) -> float:
    """Wall time of one of `calls` calls in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def calls_that_fill(least_s: float, sides: Sides) -> int:
    """How many calls in a row last about `least_s` on the fastest of the sides, which are warm."""
    return max(1, math.ceil(least_s / max(min(seconds(call) for call in sides.values()), 1e-7)))


def paired_ratio(slow_s: Sequence[float], fast_s: Sequence[float]) -> Ratio:
    """Mean and Student's t interval of log(slow / fast) over the rounds, as ratios. ValueError below two rounds."""
    if len(slow_s) < 2:
        raise ValueError(f"rounds: {len(slow_s)} given, an interval needs at least 2")
    logs = [math.log(slow / fast) for slow, fast in zip(slow_s, fast_s, strict=True)]
    mean = statistics.fmean(logs)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, df=len(logs) - 1))
    half = quantile * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(mean=math.exp(mean), low=math.exp(mean - half), high=math.exp(mean + half))
