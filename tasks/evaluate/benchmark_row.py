"""The rows of a model that was asked a benchmark, and what the stage leaves that asks."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from tasks.evaluate.answers import Answers
from tasks.evaluate.suites import Asking


@dataclass(frozen=True, kw_only=True)
class BenchmarkRow:
    """benchmarks: one row per task and metric per evaluated model per run; groups of tasks have rows of their own."""

    subject: str  # dense | pruned | given, where no dense model stands beside it
    checkpoint: str  # hash of what was loaded and asked
    task: str  # lm-eval's name of it
    within: str | None  # the group that was asked for, of which it is a part
    metric: str  # lm-eval's name of it; behind a / the filter of the replies, where it is not the plain one
    value: float  # in the unit of the metric, accuracies from 0 to 1
    stderr: float | None  # None where lm-eval has none
    chance: float | None  # what a choice at random scores, exactly; None of a metric that is not of choices
    higher_is_better: bool  # as lm-eval says of the metric
    examples: int  # questions that were scored
    few_shot: int  # solved examples before each, as they were used
    limited_to: int | None  # of each task the first so many questions; None for all
    chat: bool  # in the tokenizer's chat template
    batch: int  # as it was used
    requests: int  # of the benchmark that was asked for, as are the next two
    shortened: int  # texts longer than the model's context, which have lost their beginning
    seconds: float  # that asking took, loading apart, when it was last computed


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Every reply to a benchmark, stored: `folder` is relative to the artifacts folder."""

    hash: str
    folder: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Benchmarked:
    """What a model scored in a benchmark; its rows say "given" until a flow knows which of its models it is.

    `questions`: SHA-256 of what was asked, `samples`: every reply, where it was kept.
    """

    rows: tuple[BenchmarkRow, ...]
    questions: str
    samples: Samples | None

    def of(self, subject: str) -> list[BenchmarkRow]:
        return [replace(row, subject=subject) for row in self.rows]


def rows_of_scores(answers: Answers, asking: Asking, checkpoint: str) -> tuple[BenchmarkRow, ...]:
    how: dict[str, Any] = {"limited_to": asking.limit, "chat": asking.chat, "batch": answers.batch}
    how |= {"requests": answers.requests, "shortened": answers.shortened, "seconds": answers.seconds}
    return tuple(
        BenchmarkRow(subject="given", checkpoint=checkpoint, **asdict(score), **how) for score in answers.scores
    )
