"""Each gate is open only where a stored row of these very bytes says so."""

import dataclasses

import pytest

from tasks.record.registry.gates import Gate, Limits, closed, judge
from tests.record.plausible import CONTEXT
from tests.record.versions import record_measured

BYTES = "c" * 64


def judged(checkpoint: str = BYTES, dataset_hash: str = CONTEXT.dataset_hash, **limits: float) -> list[Gate]:
    return judge(checkpoint, dataset_hash, 256, Limits(**limits))


@pytest.mark.parametrize(
    ("measured", "limits", "gates"),
    [
        ({}, {}, []),
        ({"ppl": 9.2}, {}, ["quality"]),
        ({"ppl": float("inf")}, {"floor": 1e9}, ["quality"]),
        ({"ppl": 9.2, "size_bytes": 12_600_001}, {"floor": 1.0}, ["size"]),
        ({"low": 0.7}, {}, ["prefill speed", "decode speed"]),
        ({}, {"speed": 1.0, "size": 0.5}, ["size", "prefill speed", "decode speed"]),
        ({"low": None}, {"speed": 0.0}, ["prefill speed", "decode speed"]),
    ],
)
def test_what_fails_is_named(measured, limits, gates):
    record_measured(CONTEXT, BYTES, **measured)
    assert [gate.name for gate in closed(judged(**limits))] == gates


@pytest.mark.parametrize("asked", [{"checkpoint": "e" * 64}, {"dataset_hash": "e" * 64}])
def test_of_other_bytes_and_of_another_text_nothing_is_known(asked):
    record_measured(CONTEXT, BYTES)
    gates = judged(**asked)
    assert len(closed(gates)) == 4
    assert {gate.says for gate in gates} == {"not measured"}


def test_the_latest_run_of_the_same_bytes_counts():
    record_measured(CONTEXT, BYTES)
    later = dataclasses.replace(CONTEXT, run="r2", recorded_at="2026-01-02T03:05:05+00:00")
    record_measured(later, BYTES, low=None)
    quality, _, prefill, _ = judged()
    assert quality.evidence.startswith("evaluations: run r2,")
    assert prefill.evidence.startswith("speeds: run r1,")  # the later one was not timed


@pytest.mark.parametrize("limits", [{"floor": -0.1}, {"size": float("nan")}, {"speed": float("inf")}])
def test_a_limit_is_a_number_of_0_or_more(limits):
    with pytest.raises(ValueError, match=f"^{next(iter(limits))}: .* valid is a number of 0 or more"):
        Limits(**limits)
