"""Numbers as a reader sees them; what is absent is an en dash, what is not finite says so."""

import math
from collections.abc import Callable
from functools import wraps

ABSENT = "–"


def _for_finite(show: Callable[[float], str]) -> Callable[[float | None], str]:
    @wraps(show)
    def shown(value: float | None) -> str:
        if value is None:
            return ABSENT
        if not math.isfinite(value):
            return "∞" if value > 0 else "not a number"
        return show(value)

    return shown


@_for_finite
def digits(value: float) -> str:
    """Four significant digits: 5.903, 29.25, 113.0, 2,660."""
    if value == 0:
        return "0"
    after = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(after, 6)}f}"


@_for_finite
def scientific(value: float) -> str:
    """Three significant digits over many orders of magnitude: 0.0123, 4.56e-05."""
    return f"{value:.3g}"


@_for_finite
def signed(value: float) -> str:
    """0.871 → +0.87"""
    return f"{value:+.2f}"


@_for_finite
def percent(value: float) -> str:
    """0.5 → 50.0 %"""
    return f"{100 * value:.1f} %"


@_for_finite
def signed_percent(value: float) -> str:
    """-0.042 → -4.2 %"""
    return f"{100 * value:+.1f} %"


@_for_finite
def ratio(value: float) -> str:
    """1.118 → 1.12×"""
    return f"{value:.2f}×"


@_for_finite
def count(value: float) -> str:
    """94605 → 94,605"""
    return f"{value:,.0f}"


@_for_finite
def short(value: float) -> str:
    """A large number in three digits: 2804160 → 2.80 M."""
    for unit, divisor in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= divisor:
            return f"{value / divisor:.3g} {unit}"
    return f"{value:.0f}"


@_for_finite
def size(value: float) -> str:
    """Bytes in decimal units: 7.0 MB."""
    for unit, divisor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= divisor:
            return f"{value / divisor:.1f} {unit}"
    return f"{value:.0f} B"


@_for_finite
def milliseconds(value: float) -> str:
    """0.0273 ms, 1.27 ms"""
    return f"{value:.3g} ms"


@_for_finite
def seconds(value: float) -> str:
    """0.042 s, 12.5 s, 3 min 20 s"""
    if value < 1:
        return f"{value:.3f} s"
    if value < 120:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"
