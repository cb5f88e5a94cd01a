"""What a model answered: the scores of each task, each beside what chance would have scored, and every single reply."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BY_CHOICE = ("acc", "acc_norm", "acc_bytes")  # the metrics that a choice among those of a question scores


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric of one task or group. `stderr`: lm-eval's, None where it has none.

    `chance`: what a choice at random scores, exactly; None of a metric that is not of choices. `within`: the group that
    was asked for, of which this task is a part.
    """

    task: str
    within: str | None
    metric: str
    value: float
    stderr: float | None
    chance: float | None
    higher_is_better: bool
    examples: int
    few_shot: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A question as it was asked, and what the model made of it. What is not text is JSON."""

    task: str
    example: int
    contexts: tuple[str, ...]  # what stood before each continuation; of rolling likelihoods there is none
    continuations: tuple[str, ...]
    replies: tuple[str, ...]  # to each; of a likelihood the log-probability, in nats, and whether it is the greedy one
    target: str
    scores: str  # metric -> its value for this question


@dataclass(frozen=True, kw_only=True)
class Answers:
    """All that a model answered to a benchmark. `questions`: SHA-256 of what was asked, `seconds`: of asking it.

    `shortened`: how often a text was longer than the model's context and lost its beginning. `batch`: as it was used.
    """

    scores: tuple[Score, ...]
    samples: tuple[Sample, ...]
    requests: int
    batch: int
    shortened: int
    seconds: float
    questions: str


def scores_of(asked: str, found: Mapping[str, Any]) -> Iterator[Score]:
    """The scores in what lm-eval's `evaluate` returned for the benchmark `asked`, groups before their parts."""
    results = found["results"]
    for task in sorted(results, key=lambda name: (name != asked, name not in found["group_subtasks"], name)):
        parts = _leaves(task, found["group_subtasks"])
        chances = [_chance(part, found["samples"][part]) for part in parts]
        sizes = [results[part]["sample_len"] for part in parts]
        for name, value in results[task].items():
            metric, _, of = name.partition(",")
            if not of or metric.endswith("_stderr"):
                continue
            stderr = results[task].get(f"{metric}_stderr,{of}")
            yield Score(
                task=task,
                within=asked if task != asked and asked in results else None,
                metric=metric if of == "none" else f"{metric}/{of}",
                value=float(value),
                stderr=None if stderr in (None, "N/A") else float(stderr),
                chance=_weighted(chances, sizes) if metric in BY_CHOICE else None,
                higher_is_better=bool(found["higher_is_better"][parts[0]][metric]),
                examples=sum(sizes),
                few_shot=int(found["n-shot"][parts[0]]),
            )


def samples_of(found: Mapping[str, Any]) -> Iterator[Sample]:
    for task, samples in sorted(found["samples"].items()):
        for sample in samples:
            arguments = [tuple(map(str, each)) for each in sample["arguments"]]
            yield Sample(
                task=task,
                example=sample["doc_id"],
                contexts=tuple(each[0] for each in arguments if len(each) > 1),
                continuations=tuple(each[-1] for each in arguments),
                replies=tuple(_json(each) for each in sample["filtered_resps"]),
                target=_json(sample["target"]),
                scores=_json({name: sample[name] for name in sample["metrics"]}),
            )


def _chance(task: str, samples: Sequence[Mapping[str, Any]]) -> float | None:
    """The share of its choices that are right, a mean over the questions; None where there is nothing to choose."""
    shares = []
    for sample in samples:
        choices, target = len(sample["arguments"]), sample["target"]
        if choices < 2:
            return None
        right = len(target) if isinstance(target, list) else 1
        if task == "truthfulqa_mc2":  # its score is the share of the probability that true answers have
            right = sum(sample["doc"]["mc2_targets"]["labels"])
        shares.append(right / choices)
    return sum(shares) / len(shares)


def _weighted(chances: Sequence[float | None], sizes: Sequence[int]) -> float | None:
    known = [(chance, size) for chance, size in zip(chances, sizes, strict=True) if chance is not None]
    if len(known) < len(chances):
        return None
    return sum(chance * size for chance, size in known) / sum(size for _, size in known)


def _leaves(task: str, below: Mapping[str, Sequence[str]]) -> list[str]:
    return [task] if task not in below else [leaf for part in below[task] for leaf in _leaves(part, below)]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
