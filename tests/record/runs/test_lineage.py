"""From a run, or the version that it registered, back to all that went in; and in what two of them differ."""

import dataclasses
import json

import pytest

from tasks.handles import StageRow
from tasks.record import metrics
from tasks.record.runs.comparison_words import lineage_words
from tasks.record.runs.lineage import differences, lineage_of
from tests.record.plausible import CONTEXT, record_run, record_texts
from tests.record.versions import CODE, record_version

R2 = dataclasses.replace(CONTEXT, run="r2", recorded_at="2026-01-02T03:05:05+00:00")


def test_a_version_leads_back_to_data_code_parameters_seed_libraries_and_machine():
    record_version()
    lineage = lineage_of("stories/1")
    assert lineage == lineage_of("r1")
    inputs = lineage.inputs()
    assert inputs["parameters"] == {"pattern": "2:4", "pruner.method": "wanda", "seed": "0"}
    texts = {"text, calibration docs": "b" * 64, "text, evaluation docs": "d" * 64}
    assert inputs["data"] == {"model": "a" * 64} | texts
    assert inputs["code"] == CODE
    assert inputs["libraries"] == json.loads(CONTEXT.versions)
    assert inputs["machine"] == {"cores": "2", "gpu": "none", "platform": "Linux", "processor": "A CPU"}
    assert lineage.contents == {"checkpoint": "f" * 64, "packed": "c" * 64}
    words = lineage_words(lineage)
    assert all(value in words for own in inputs.values() for value in own.values())


def test_of_the_runs_that_made_a_versions_bytes_the_first_counts():
    record_version(R2)
    record_version()
    assert [lineage_of(named).run for named in ("stories/1", "r2")] == ["r1", "r2"]


def test_what_names_nothing_is_told_what_to_name():
    record_run(sweep="s1")
    with pytest.raises(ValueError, match=r"^run: s1 is a sweep; choose one of its runs, r1$"):
        lineage_of("s1")
    with pytest.raises(ValueError, match=r"^run: 'r9' is no recorded run and no version such as NAME/3"):
        lineage_of("r9")


def test_only_what_differs_is_named():
    record_version()
    machine = CONTEXT.machine.replace("25769803776", "1")  # memory: of no consequence
    libraries = CONTEXT.versions.replace("2.13.0", "2.14.0")
    changed = dataclasses.replace(R2, model_hash="e" * 64, versions=libraries, machine=machine)
    record_version(changed, pruner={"method": "sparsegpt", "damp": 0.01})
    record_texts(changed, calibration_hash="9" * 64)
    code = CODE | {"prune": "3" * 64}
    metrics.record(
        changed, "stages", [StageRow(stage=name, seconds=1.0, cached=False, code=each) for name, each in code.items()]
    )
    assert differences(lineage_of("r1"), lineage_of("r1")) == {}
    assert differences(lineage_of("r1"), lineage_of("r2")) == {
        "parameters": {"pruner.method": ("wanda", "sparsegpt"), "pruner.damp": (None, "0.01")},
        "data": {"model": ("a" * 64, "e" * 64), "text, calibration docs": ("b" * 64, "9" * 64)},
        "code": {"prune": ("1" * 64, "3" * 64)},
        "libraries": {"torch": ("2.13.0", "2.14.0")},
    }


def test_of_code_that_was_not_recorded_nothing_is_said():
    record_version()
    record_run(R2)
    found = differences(lineage_of("r1"), lineage_of("r2"))
    assert found.keys() == {"parameters"}
