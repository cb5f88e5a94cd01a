"""A forecast is a constant and a share of the work, bounded by what was seen and what is in proportion."""

import dataclasses
import json

import numpy as np
import pytest

from tasks.handles import StageRow
from tasks.record import metrics
from tasks.record.runs.planning import Ahead, expected_seconds, plan, together
from tests.record.plausible import CONTEXT, evaluation, finish, record_run

PARAMETERS = {"pattern": "2:4", "pruner": "wanda", "evaluation": "docs"}
AHEAD = Ahead(
    flow="oneshot",
    parameters=PARAMETERS,
    model_hash=CONTEXT.model_hash,
    method="wanda",
    pattern="2:4",
    machine=CONTEXT.machine,
    size_bytes=12_600_000,
    calibration_tokens=999,
    recovery_tokens=0,
)


def stages_of(ahead: Ahead) -> dict:
    found = plan(ahead)
    assert found is not None
    return {step.stage: step for step in found.steps}


def test_a_constant_and_a_share_are_told_apart_by_looks_at_different_work():
    ratios = np.array([0.1, 0.5, 3.0])
    assert expected_seconds(ratios, 2 + 7 * ratios) == pytest.approx(9)
    assert expected_seconds(ratios, 7 * ratios) == pytest.approx(7)
    assert expected_seconds(ratios, np.full(3, 2.0)) == pytest.approx(2)


def test_one_amount_of_work_is_taken_in_proportion_upwards_and_as_it_is_downwards():
    assert expected_seconds(np.array([0.25, 0.25, 0.25]), np.array([1.0, 2.0, 9.0])) == 8
    assert expected_seconds(np.array([4.0]), np.array([6.0])) == 6


def test_nothing_is_planned_from_nothing():
    assert plan(AHEAD) is None


def test_a_stage_that_was_only_found_again_tells_no_time():
    record_run()
    found = stages_of(AHEAD)
    assert [*found] == ["tokenize", "prune", "evaluate"]
    assert (found["tokenize"].looks, found["tokenize"].alike) == (0, "nothing")
    assert (found["prune"].seconds, found["prune"].looks) == (1.5, 1)
    assert found["prune"].alike == "the same model, method and pattern"


def test_twice_the_model_and_thrice_the_tokens_are_at_most_six_times_the_work():
    record_run()
    prune = stages_of(dataclasses.replace(AHEAD, size_bytes=25_200_000, calibration_tokens=2997))["prune"]
    assert (prune.least, prune.seconds, prune.most) == (1.5, pytest.approx(9), pytest.approx(9))
    assert stages_of(dataclasses.replace(AHEAD, machine="{}"))["prune"].looks == 0


def test_a_run_that_looked_at_no_text_counts_as_if_it_were_as_long():
    record_run()
    other = dataclasses.replace(CONTEXT, run="r2", method="magnitude", model_hash="e" * 64)
    metrics.record(other, "stages", [StageRow(stage="tokenize calibration", seconds=3.0, cached=False)])
    metrics.record(other, "evaluations", [evaluation("dense")])
    finish(other, parameters=json.dumps(PARAMETERS))
    ahead = dataclasses.replace(AHEAD, model_hash="e" * 64, calibration_tokens=65536)
    assert stages_of(ahead)["tokenize calibration"].seconds == 3


def test_a_stage_that_the_words_switch_off_is_not_planned():
    record_run()
    metrics.record(CONTEXT, "stages", [StageRow(stage="time speed", seconds=5.0, cached=False)])
    assert "time speed" in stages_of(AHEAD)
    assert "time speed" not in stages_of(dataclasses.replace(AHEAD, parameters=PARAMETERS | {"speed": False}))


def test_a_stage_that_the_run_most_alike_was_not_asked_for_is_that_of_one_that_was_or_is_not_known():
    """The newest run has the same words but for the timing; an older one, of other words, was timed."""
    asked = dataclasses.replace(AHEAD, parameters=PARAMETERS | {"speed": True})
    record_run()
    finish(parameters=json.dumps(PARAMETERS | {"speed": False}))
    assert (stages_of(asked)["time"].looks, stages_of(asked)["time"].alike) == (0, "nothing")
    older = dataclasses.replace(CONTEXT, run="r0", recorded_at="2026-01-01T03:04:05+00:00")
    record_run(older)
    metrics.record(older, "stages", [StageRow(stage="time speed", seconds=5.0, cached=False)])
    finish(older, parameters=json.dumps({"pattern": "50%", "speed": True}))
    found = stages_of(asked)
    assert [*found] == ["tokenize", "prune", "evaluate", "time speed"]
    assert found["time speed"].seconds == 5.0


def test_the_stages_are_those_of_the_run_whose_parameters_are_most_alike():
    record_run()
    finish(parameters=json.dumps(PARAMETERS))
    newer = dataclasses.replace(CONTEXT, run="r2", recorded_at="2026-02-02T03:04:05+00:00")
    record_run(newer)
    finish(newer, parameters=json.dumps(PARAMETERS | {"pattern": "50%"}))
    found = plan(AHEAD)
    assert found is not None
    assert found.after == "r1"


def test_the_points_of_a_sweep_share_what_does_not_depend_on_the_point():
    record_run()
    one = plan(AHEAD)
    assert one is not None
    both = {step.stage: step for step in together([one, one]).steps}
    assert both["prune"].seconds == 3
    assert both["tokenize"].looks == one.steps[0].looks
    assert together([one, one]).stored_bytes == 2 * (one.stored_bytes or 0) > 0
