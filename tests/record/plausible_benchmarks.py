"""Rows of a run that asked benchmarks, as plausible as those of `plausible`."""

import dataclasses

from tasks.evaluate.benchmark_row import BenchmarkRow
from tasks.handles import Context
from tasks.record import metrics
from tests.record.plausible import CONTEXT, finish

RUN = dataclasses.replace(CONTEXT, run="b1", flow="evaluate")
ARC = BenchmarkRow(
    subject="pruned",
    checkpoint="c" * 64,
    task="arc_easy",
    within=None,
    metric="acc",
    value=0.4,
    stderr=0.05,
    chance=0.25,
    higher_is_better=True,
    examples=100,
    few_shot=0,
    limited_to=100,
    chat=False,
    batch=8,
    requests=400,
    shortened=2,
    seconds=12.0,
)
WORDS = dataclasses.replace(
    ARC, task="wikitext", metric="word_perplexity", value=24.0, stderr=None, chance=None, higher_is_better=False
)
PART = dataclasses.replace(ARC, task="mmlu_law", within="mmlu", examples=60)
GROUP = dataclasses.replace(ARC, task="mmlu", value=0.27, stderr=0.02, few_shot=5)


def dense(row: BenchmarkRow, value: float) -> BenchmarkRow:
    return dataclasses.replace(row, subject="dense", value=value)


def record_benchmarks(context: Context = RUN) -> None:
    """Three tasks, one of them with a part, of a pruned model and its dense one; a run with nothing else."""
    rows = [ARC, dense(ARC, 0.55), WORDS, dense(WORDS, 12.0), GROUP, dense(GROUP, 0.3), PART, dense(PART, 0.3)]
    metrics.record(context, "benchmarks", rows)
    finish(context)
