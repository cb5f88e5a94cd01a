"""What a page says of benchmarks: each score beside the dense model's, how sure it is, and chance."""

import dataclasses

import pytest

from tasks.evaluate.benchmark_row import BenchmarkRow
from tasks.record import metrics
from tasks.record.pages.benchmarks import benchmark_metrics, benchmarks
from tasks.record.pages.report import write_report
from tasks.record.pages.results import markdown_table
from tasks.record.runs.listing import runs_table
from tasks.record.runs.origins import origin_of
from tests.record.plausible import CONTEXT, finish, record_run
from tests.record.plausible_benchmarks import ARC, PART, RUN, WORDS, dense, record_benchmarks
from tests.record.reading import cells, text_of


@pytest.fixture
def asked(artifacts) -> None:
    record_benchmarks()


def test_a_row_is_written_for_each_task_and_metric_of_each_model_and_read_again(asked):
    stored = metrics.query("select * from benchmarks where task = 'wikitext' and subject = 'pruned'")
    names = [field.name for field in dataclasses.fields(BenchmarkRow)]
    assert [BenchmarkRow(**{name: row[name] for name in names}) for row in stored] == [WORDS]
    with pytest.raises(ValueError, match="benchmarks: two rows with the same subject, task, metric"):
        metrics.record(RUN, "benchmarks", [ARC, ARC])


def test_the_table_has_both_models_side_by_side_and_no_part_of_a_group(asked):
    head, _, *rows = cells(markdown_table("b1"))
    assert head == ["Task", "Metric", "Dense", "Pruned", "Change", "Chance", "Questions", "Examples shown"]
    assert rows == [
        ["arc_easy", "acc", "55.0 % ± 5.0 %", "40.0 % ± 5.0 %", "-15.0 points", "25.0 %", "100", "0"],
        ["mmlu", "acc", "30.0 % ± 2.0 %", "27.0 % ± 2.0 %", "-3.0 points", "25.0 %", "100", "5"],
        ["wikitext", "word_perplexity", "12.00", "24.00", "2.00×", "–", "100", "0"],
    ]


def test_the_page_says_what_is_not_surely_above_chance_and_has_the_parts_of_a_group(asked):
    page = write_report("b1").read_text(encoding="utf-8")
    assert "of each task the first 100" in page
    assert "1 of 2 scores are not surely above chance" in page  # mmlu: 27 % is within two errors of 2 % above 25 %
    assert "6 texts were longer than the context" in page
    assert page.count("<figure>") == 1
    assert "mmlu, task by task" in page
    assert "mmlu_law" in text_of(page)
    assert "<h2>Results</h2>" not in page


def test_a_run_without_any_has_no_section(artifacts):
    record_run()
    assert benchmarks("r1") == ""


def test_a_model_alone_has_one_column(artifacts):
    metrics.record(RUN, "benchmarks", [dataclasses.replace(ARC, subject="given")])
    finish(RUN)
    assert cells(markdown_table("b1"))[0] == ["Task", "Metric", "Score", "Chance", "Questions"]


def test_the_list_of_runs_has_a_line_without_perplexities(asked):
    [line] = [line for line in runs_table().splitlines() if "b1" in line]
    assert "None" not in line


def test_metrics_are_named_after_task_and_metric_and_parts_have_none():
    assert benchmark_metrics([ARC, dense(ARC, 0.5), PART]) == {"arc_easy_acc": 0.4, "dense_arc_easy_acc": 0.5}


def test_rows_say_what_made_an_artifact(artifacts):
    record_run()
    found = origin_of("c" * 64)
    assert found is not None
    assert (found.run, found.model_hash, found.method) == (CONTEXT.run, CONTEXT.model_hash, CONTEXT.method)
    assert origin_of("0" * 64) is None
