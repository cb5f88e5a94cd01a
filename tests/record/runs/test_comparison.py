"""Two runs side by side: numbers meet only where they were measured alike, parts are compared in pairs."""

import dataclasses
import math
import re

import pytest

from tasks.evaluate.benchmark_row import BenchmarkRow
from tasks.handles import Context, LinearRow
from tasks.record import metrics
from tasks.record.runs.comparison import Comparison, Pairs, compare, geometric_mean
from tasks.record.runs.comparison_words import comparison_words
from tasks.record.runs.lineage import lineage_of
from tests.record.plausible import CONTEXT, evaluation, record_run
from tests.record.plausible_benchmarks import ARC
from tests.record.plausible_profiles import RUN as PROFILES
from tests.record.plausible_profiles import record_profiles

R2 = dataclasses.replace(CONTEXT, run="r2", method="sparsegpt")


def held(a: str = "r1", b: str = "r2") -> Comparison:
    return compare(lineage_of(a), lineage_of(b))


def by_name(found: Comparison, field: str) -> dict[str, object]:
    return {measure.name: getattr(measure, field) for measure in found.measures}


def test_a_geometric_mean_has_students_interval():
    mean, low, high = geometric_mean([2.0, 8.0])
    reach = math.tan(math.pi * 0.475) * math.log(2)  # with one degree of freedom; ln 2 is the standard error
    assert mean == pytest.approx(4)
    assert low == pytest.approx(4 * math.exp(-reach))
    assert high == pytest.approx(4 * math.exp(reach))
    assert geometric_mean([0.5]) == (pytest.approx(0.5), None, None)


def test_what_was_measured_alike_is_held_together():
    record_run()
    record_run(R2, pruned=evaluation(ppl=10.0, size_bytes=3_500_000), decode=(1.4, 1.3, 1.5))
    found = held()
    assert found.apart == []
    ratios = by_name(found, "ratio")
    assert ratios["ppl"] == pytest.approx(10 / 20.0855)
    assert ratios["size_bytes"] == 0.5
    assert ratios["decode_speed"] == pytest.approx(1.4 / 1.12)
    assert by_name(found, "low")["decode_speed"] == pytest.approx(1.3 / 1.18)
    assert by_name(found, "high")["decode_speed"] == pytest.approx(1.5 / 1.07)
    assert by_name(found, "dense")["ppl"] == 6.05


def test_another_text_and_another_machine_are_not_held_together():
    record_run()
    elsewhere = dataclasses.replace(R2, dataset_hash="e" * 64, machine=CONTEXT.machine.replace("A CPU", "B CPU"))
    record_run(elsewhere)
    found = held()
    assert [(measure.a, measure.b, measure.ratio) for measure in found.measures if measure.name == "ppl"] == [
        (20.0855, None, None),
        (None, 20.0855, None),
    ]
    assert by_name(found, "ratio")["decode_speed"] is None
    assert by_name(found, "ratio")["parameters"] == 1.0
    assert [said.split(",")[0] for said in found.apart] == [
        "no text was scored by both",
        "they were not timed on one machine beside one dense model",
    ]


def test_a_sparsity_below_zero_is_nothing_to_hold_another_beside():
    record_run(pruned=evaluation(sparsity=-0.023))
    record_run(R2)
    assert [by_name(held(*pair), "ratio")["sparsity"] for pair in (("r1", "r2"), ("r2", "r1"))] == [None, None]
    assert re.search(r"\| sparsity +\| +0.0 % \| +-2.3 % \| +50.0 % \|", comparison_words(held()))


def test_models_of_other_names_are_not_held_together():
    record_run()
    record_profiles(dataclasses.replace(PROFILES, run="r2"))
    assert held().apart[0] == "they made models of other names (pruned and depth20, heads20), so none are compared"


def linears(context: Context, factor: float) -> list[LinearRow]:
    stored = metrics.query("select * from linears where run = 'r1'")
    names = [field.name for field in dataclasses.fields(LinearRow)]
    rows = [LinearRow(**{name: row[name] for name in names}) for row in stored]
    return [dataclasses.replace(row, error=(row.error or 0) * factor, error_from="gram") for row in rows]


def test_parts_of_one_model_are_compared_in_pairs():
    record_run()
    record_run(R2)
    for context, factor in ((CONTEXT, 1.0), (R2, 0.25)):
        metrics.record(context, "linears", linears(context, factor))
    quarter, same = (pytest.approx(ratio) for ratio in (0.25, 1.0))
    assert sorted(held().pairs, key=lambda pair: pair.what) == [
        Pairs(what="error of blocks", count=2, lower=0, ratio=same, low=same, high=same),
        Pairs(what="error of linears", count=4, lower=4, ratio=quarter, low=quarter, high=quarter),
    ]
    of_another = dataclasses.replace(R2, run="r3", model_hash="e" * 64)
    record_run(of_another)
    assert held("r1", "r3").pairs == []


def asked(run: str, checkpoint: str, value: float, questions: str = "7" * 64) -> None:
    row = dataclasses.replace(ARC, checkpoint=checkpoint, value=value)
    context = dataclasses.replace(CONTEXT, run=run, flow="evaluate", dataset_hash=questions)
    rows: list[BenchmarkRow] = [row, dataclasses.replace(row, subject="dense", checkpoint="a" * 64)]
    metrics.record(context, "benchmarks", rows)
    record_run(context, pruned=evaluation(checkpoint=checkpoint))


def test_benchmarks_that_other_runs_asked_of_the_same_bytes_count():
    record_run()
    record_run(R2, pruned=evaluation(checkpoint="e" * 64))
    asked("b1", "c" * 64, 0.4)
    asked("b2", "e" * 64, 0.5)
    [score] = held().scores
    assert (score.name, score.a, score.b, score.chance) == ("arc_easy acc", 0.4, 0.5, 0.25)
    assert score.difference == pytest.approx(0.1)
    assert score.stderr == pytest.approx(0.05 * math.sqrt(2))
    asked("b2", "e" * 64, 0.5, questions="8" * 64)
    assert held().scores == []


def test_the_words_name_what_differs_and_leave_out_what_is_not_there():
    record_run()
    record_run(R2)
    words = comparison_words(held())
    assert "A  r1: oneshot, wanda 2:4 of stories" in words
    assert "No input differs." in words
    assert "Scored on docs, windows of 256." in words
    assert "Benchmark" not in words
    assert "| perplexity " in words
