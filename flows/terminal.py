"""What a command says: results on stdout, everything else on stderr."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from tasks.secret import without_secrets

if TYPE_CHECKING:
    from flows.outcome import Outcome
    from flows.profiles import ProfilesOutcome
    from tasks.evaluate.forecast_row import ForecastRow
    from tasks.handles import EvaluationRow, SpeedRow

SCORES = ("ppl", "nll", "bits_per_byte", "tokens", "windows")
SIZES = ("parameters", "size_bytes", "memory_bytes", "sparsity")
FORETOLD = ("forecast_latency_ms", "forecast_ratio", "measured_ratio", "error")
HELD = ("own_bytes", "shared_bytes", "switches", "switch_median_ms", "switch_worst_ms")


def say(line: str) -> None:
    print(f"espalier: {without_secrets(line)}", file=sys.stderr, flush=True)


def show_rows(rows: list[dict]) -> None:
    """Rows as a Markdown table on stdout, every number as it is stored."""
    if not rows:
        print("no rows")
        return
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join("" if value is None else str(value) for value in row.values()) + " |")


def show_end(run: str, report: str, aside: bool, model: str | None = None) -> None:
    """The results table and where to look, for the `model` too; `aside` of a program that reads JSON from stdout."""
    from tasks.record.metrics import query_named
    from tasks.record.pages.cuts import budgets_told, forecasts_told
    from tasks.record.pages.results import markdown_table, overlap_of
    from tasks.record.pages.titles import reuse_told

    (found,) = query_named("cached", run=run)
    say(reuse_told(**found))
    if overlap := overlap_of(run):
        say(f"warning: {overlap}")
    for told in budgets_told(run) + forecasts_told(run):
        say(told)
    place = sys.stderr if aside else sys.stdout
    print(markdown_table(run), end="", file=place)
    print(f"\nmodel    {model}" if model else "", file=place)
    print(f"report   {report}", file=place)
    print("Prefect  make up, then http://127.0.0.1:4200", file=place)
    print("MLflow   make up, then http://127.0.0.1:5000", file=place)


def outcome_json(outcome: "Outcome") -> dict:
    """The JSON object that programs read; both models with the same fields.

    Of a cut also, under `cut`, what was to go and what went, and under `forecasts`, by phase, the speed that was
    foretold against the one that was measured, where speed was.
    """
    packed = {"packed": outcome.packed} if outcome.packed is not None else {}
    places = {"checkpoint": outcome.checkpoint, **packed, "report": outcome.report}
    dense, result = (_measured(row, outcome.speeds) for row in (outcome.dense, outcome.result))
    cut = {"cut": asdict(outcome.cut)} if outcome.cut is not None else {}
    foretold = _foretold(outcome.forecasts, outcome.result.subject)
    return {"run": outcome.run, **places, **cut, "dense": dense, "result": result, **foretold}


def profiles_json(outcome: "ProfilesOutcome") -> dict:
    """As `outcome_json`; under `results` is every profile by its name, with its memory and how long a switch takes."""
    held = {row.profile: {name: getattr(row, name) for name in HELD} for row in outcome.rows}
    results = {
        row.subject: _measured(row, outcome.speeds) | held[row.subject] | _foretold(outcome.forecasts, row.subject)
        for row in outcome.results
    }
    places = {"profiles": outcome.profiles, "report": outcome.report}
    return {"run": outcome.run, **places, "dense": _measured(outcome.dense, outcome.speeds), "results": results}


def _measured(row: "EvaluationRow", speeds: "Sequence[SpeedRow]") -> dict:
    facts = {name: getattr(row, name) for name in SCORES + SIZES}
    timed = {speed.phase: speed.tokens_per_s for speed in speeds if speed.subject == row.subject}
    return facts | {f"{phase}_tokens_per_s": timed[phase] for phase in ("prefill", "decode") if phase in timed}


def _foretold(forecasts: "Sequence[ForecastRow]", subject: str) -> dict:
    """By phase; nothing where nothing was."""
    own = {row.phase: {name: getattr(row, name) for name in FORETOLD} for row in forecasts if row.subject == subject}
    return {"forecasts": own} if own else {}
