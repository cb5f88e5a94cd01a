"""What a run that is yet to be will take, from the stages that were computed before.

The stages are those of the recorded run of the same flow whose parameters are most alike; timing and training, where
that run had none and they are asked for, are those of another. What a stage takes follows from the computed stages of
that name that are most alike: of the same model, method and pattern if there are any, else of the same model and
method, of the model, of the method, or of anything. A stage takes a constant and a share of its work, the bytes of the
weights times the tokens that it reads: both are fitted where looks differ in work. From one amount of work they cannot
be told apart, so it lies between what was seen and what is in proportion to the work. A plan is no promise: the least
and the most stand beside it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from tasks.record.metrics import query_named

ALIKE = {  # what a computed stage has in common with the planned one; the first that any has is taken
    "the same model, method and pattern": ("model_hash", "method", "pattern"),
    "the same model and method": ("model_hash", "method"),
    "the same model": ("model_hash",),
    "the same method": ("method",),
    "other runs": (),
}
TIMING = ("time", "forecast")  # how the stages begin that are there only where they are asked for
RECOVERING = ("recover", "tokenize recovery")
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """A run that is yet to be. `parameters`: its flow's, as JSON has them; `machine`: the JSON of rows."""

    flow: str
    parameters: Mapping[str, Any]
    model_hash: str
    method: str
    pattern: str
    machine: str
    size_bytes: int  # of the weight files
    calibration_tokens: int
    recovery_tokens: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage: what it is expected to take, and the least and the most."""

    stage: str
    seconds: float
    least: float
    most: float
    peak_bytes: int | None  # of the whole process; None where none was measured
    looks: int  # computed stages that this comes from; 0: none, and nothing is known
    alike: str  # what they have in common with this one


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The stages in order. `after`: the run whose stages they are; `same`: it had the very same parameters."""

    after: str
    same: bool
    steps: tuple[Step, ...]
    stored_bytes: int | None  # on the disk, of checkpoints and the registry's copy


def plan(ahead: Ahead) -> Plan | None:
    """None where no run of this flow is recorded."""
    runs = query_named("alike", flow=ahead.flow)
    if not runs:
        return None
    told = ahead.parameters
    model = max(runs, key=lambda run: _shared(json.loads(run["parameters"]), told))  # of equals, the newest
    text = ahead.parameters["evaluation"]
    evaluation = next((run["evaluation_tokens"] for run in runs if run["evaluation"] == text), None)
    tokens = {
        "calibration_tokens": ahead.calibration_tokens,
        "evaluation_tokens": evaluation or model["evaluation_tokens"],
        "recovery_tokens": ahead.recovery_tokens,
    }
    computed = [row for row in query_named("stages_computed") if row["machine"] == ahead.machine]
    planned = {**vars(ahead), **tokens}
    stored = model["stored_bytes"] and int(model["stored_bytes"] * ahead.size_bytes / model["size_bytes"])
    return Plan(
        after=model["run"],
        same=json.loads(model["parameters"]) == told,
        steps=tuple(_step(stage, planned, computed) for stage in _stages(model, runs, told)),
        stored_bytes=stored,
    )


def together(plans: Sequence[Plan]) -> Plan:
    """Of the points of a sweep in one table: a stage of one name once, unless each point computes its own.

    The tokens and the dense model's score are the same for all points, so they are computed once.
    """
    steps: dict[str, Step] = {}
    for step in (step for each in plans for step in each.steps):
        if step.stage not in steps:
            steps[step.stage] = step
        elif not step.stage.startswith(("tokenize", "evaluate dense")):
            before = steps[step.stage]
            steps[step.stage] = Step(
                stage=step.stage,
                seconds=before.seconds + step.seconds,
                least=before.least + step.least,
                most=before.most + step.most,
                peak_bytes=max(before.peak_bytes or 0, step.peak_bytes or 0) or None,
                looks=before.looks + step.looks,
                alike=before.alike if before.alike == step.alike else "several",
            )
    stored = [each.stored_bytes for each in plans if each.stored_bytes is not None]
    return Plan(
        after=plans[0].after,
        same=all(each.same for each in plans),
        steps=tuple(steps.values()),
        stored_bytes=sum(stored) if stored else None,
    )


def _step(stage: str, planned: Mapping[str, Any], computed: Sequence[Row]) -> Step:
    alike, found = _most_alike([row for row in computed if row["stage"] == stage], planned)
    if not found:
        return Step(stage=stage, seconds=0.0, least=0.0, most=0.0, peak_bytes=None, looks=0, alike="nothing")
    ratios = np.array([_of_work(stage, row, planned) for row in found])
    seconds = np.array([row["seconds"] for row in found])
    bounds = np.concatenate([seconds, seconds / ratios])
    peaks = [_peak(row, planned["size_bytes"]) for row in found if row["peak_bytes"] is not None]
    return Step(
        stage=stage,
        seconds=expected_seconds(ratios, seconds),
        least=float(bounds.min()),
        most=float(bounds.max()),
        peak_bytes=max(peaks, default=None),
        looks=len(found),
        alike=alike,
    )


def expected_seconds(ratios: NDArray[np.float64], seconds: NDArray[np.float64]) -> float:
    """Of work 1, from looks at `ratios` of that work: a constant and a share, neither below 0, by least squares.

    From looks at one ratio alone, in proportion where there is more work to come, as seen where there is less.
    """
    if np.ptp(ratios) > 0:
        design = np.stack([np.ones_like(ratios), ratios], axis=1)
        return float(nnls(design / seconds[:, None], np.ones_like(seconds))[0].sum())  # of relative errors
    return float(np.median(seconds) / min(1.0, ratios[0]))


def _most_alike(rows: Sequence[Row], planned: Mapping[str, Any]) -> tuple[str, list[Row]]:
    """The rows that have most in common with what is planned, and what that is."""
    for alike, columns in ALIKE.items():
        found = [row for row in rows if all(row[column] == planned[column] for column in columns)]
        if found:
            return alike, found
    return "nothing", []


def _of_work(stage: str, row: Mapping[str, Any], planned: Mapping[str, Any]) -> float:
    """The work of a computed stage as a share of the planned one's: by weights and tokens, or either where one counts.

    A run of a method that looks at no text has no row of its calibration text: it counts as the planned one's.
    """
    kind, _, what = stage.replace(",", "").partition(" ")
    of_text = {"evaluate": "evaluation", "recover": "recovery", "tokenize": what.partition(" ")[0]}
    name = f"{of_text.get(kind, 'calibration')}_tokens"
    tokens = row[name] / planned[name] if row.get(name) and planned.get(name) else 1.0
    weights = row["size_bytes"] / planned["size_bytes"]
    if kind == "tokenize":
        return float(tokens)
    return float(weights) if kind in ("pack", "time", "forecast", "switch") else float(weights * tokens)


def _stages(model: Row, runs: Sequence[Row], told: Mapping[str, Any]) -> list[str]:
    """Those of the run `model` that are asked for; others that are, of the newest run that had them, or their kind."""
    stages = [stage for stage in model["stages"] if _is_asked(stage, told)]
    for kinds, asked in ((RECOVERING, told.get("recover_tokens", 0)), (TIMING, told.get("speed", False))):
        if asked and not any(stage.startswith(kinds) for stage in stages):
            others = ([stage for stage in run["stages"] if stage.startswith(kinds)] for run in runs)
            stages += next(filter(None, others), [kinds[0]])
    return stages


def _is_asked(stage: str, told: Mapping[str, Any]) -> bool:
    """Whether the words ask for a stage that the run before had."""
    if stage.startswith(TIMING):
        return bool(told.get("speed", True))
    return bool(told.get("recover_tokens", 1)) or not stage.startswith(RECOVERING)


def _peak(row: Row, size_bytes: int) -> int:
    """What grows with the model is at least its weights; the rest is the libraries'."""
    return int(row["peak_bytes"] + size_bytes - row["size_bytes"])


def _shared(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    """How many parameters are the same."""
    return sum(one.get(name) == value for name, value in other.items())
