"""A forecast of speed, and the row that holds it against what was measured after the cut."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.handles import SpeedRow


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Of one phase of a model that is yet to be cut. `latency_ms`: of the whole prompt, or of one decoded token.

    `ratio`: speed against the dense model, above 1 is faster.
    """

    phase: str  # prefill | decode
    latency_ms: float
    ratio: float


@dataclass(frozen=True, kw_only=True)
class ForecastRow:
    """forecasts: one row per phase per run that forecast the speed of its cut model and then measured it."""

    phase: str  # prefill | decode
    forecast_latency_ms: float  # of the whole prompt, or of one decoded token
    forecast_ratio: float  # speed against dense, > 1 is faster
    measured_ratio: float  # of the cut model, timed beside dense
    error: float  # forecast_ratio / measured_ratio - 1


def forecast_rows(forecasts: Sequence[Forecast], speeds: Sequence[SpeedRow]) -> list[ForecastRow]:
    """Each forecast beside the measured speed of its phase. Raises ValueError for a phase that was not measured."""
    measured = {row.phase: row.ratio for row in speeds if row.subject != "dense"}
    for forecast in forecasts:
        if forecast.phase not in measured:
            raise ValueError(f"speeds: {', '.join(measured) or 'none'} given, valid is a row for {forecast.phase} too")
    return [
        ForecastRow(
            phase=forecast.phase,
            forecast_latency_ms=forecast.latency_ms,
            forecast_ratio=forecast.ratio,
            measured_ratio=measured[forecast.phase],
            error=forecast.ratio / measured[forecast.phase] - 1,
        )
        for forecast in forecasts
    ]
