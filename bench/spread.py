"""Perplexities of several seeds as text."""

from collections.abc import Sequence
from statistics import mean, stdev

SEEDS = 3  # of which nothing is said


def spread(ppls: Sequence[float]) -> str:
    """Mean ± standard deviation; in brackets how many, where they are not three."""
    deviation = f" ± {digits(stdev(ppls), mean(ppls))}" if len(ppls) > 1 else ""
    return f"{digits(mean(ppls), mean(ppls))}{deviation}{'' if len(ppls) == SEEDS else f' ({len(ppls)})'}"


def digits(value: float, of: float) -> str:
    """As many digits as make sense of a number of the size `of`."""
    return f"{value:.2f}" if of < 100 else f"{value:.1f}" if of < 1000 else f"{value:,.0f}"
