"""A forecast of speed, and the row that holds it against what was measured after the cut."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.handles import SpeedRow


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Of one phase of a model that is yet to be cut. `latency_ms`: of the whole prompt, or of one decoded token.

    `ratio`: speed against the dense model, above 1 is faster.
    """

    subject: str  # what the cut model will be called: pruned, or the name of a profile
    phase: str  # prefill | decode
    latency_ms: float
    ratio: float


@dataclass(frozen=True, kw_only=True)
class ForecastRow:
    """forecasts: one row per cut model and phase per run that forecast its speed and then measured it."""

    subject: str | None = "pruned"  # or the name of a profile; as in its rows of speeds
    phase: str  # prefill | decode
    forecast_latency_ms: float  # of the whole prompt, or of one decoded token
    forecast_ratio: float  # speed against dense, > 1 is faster
    measured_ratio: float  # of the cut model, timed beside dense
    error: float  # forecast_ratio / measured_ratio - 1


def forecast_rows(forecasts: Sequence[Forecast], speeds: Sequence[SpeedRow]) -> list[ForecastRow]:
    """Each forecast beside the speed of its subject and phase. Raises ValueError where one was not measured."""
    measured = {(row.subject, row.phase): row.ratio for row in speeds}
    for forecast in forecasts:
        if (forecast.subject, forecast.phase) not in measured:
            given = ", ".join(f"{phase} of {subject}" for subject, phase in measured) or "none"
            raise ValueError(f"speeds: {given} given, valid is a row for {forecast.phase} of {forecast.subject} too")
    return [_row(forecast, measured[forecast.subject, forecast.phase]) for forecast in forecasts]


def _row(forecast: Forecast, ratio: float) -> ForecastRow:
    return ForecastRow(
        subject=forecast.subject,
        phase=forecast.phase,
        forecast_latency_ms=forecast.latency_ms,
        forecast_ratio=forecast.ratio,
        measured_ratio=ratio,
        error=forecast.ratio / ratio - 1,
    )
