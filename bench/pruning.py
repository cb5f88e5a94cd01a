"""Whole models, calibration included: wall time, peak memory, and whether the keeps agree."""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor
from transformers import PreTrainedModel

from bench.agreement import linear_by_linear, untied
from bench.memory import peak_bytes
from bench.models import SUBJECTS
from bench.sides import sides_of
from bench.textbook_walk import linears_of
from bench.timing import interleave
from tasks.prune.weight.pattern import parse_pattern

METHODS = ("magnitude", "wanda", "sparsegpt")
PATTERNS = ("50%", "2:4")


@dataclass(frozen=True, kw_only=True)
class PruningRow:
    """One row per model, method and pattern."""

    model: str
    method: str
    pattern: str
    times_s: dict[str, list[float]]  # side -> each round, seconds
    peak_bytes: dict[str, int]  # side -> above the loaded model
    iou: float  # over all linears, from untied weights, both sides on the same inputs


def compare_prunings(subject: str, rounds: int, threads: int) -> Iterator[PruningRow]:
    """METHODS × PATTERNS. Comparing the keeps comes first and warms both sides up."""
    model, batches = SUBJECTS[subject].load(), SUBJECTS[subject].batches()
    dense = [linear.weight.detach().clone() for linear in linears_of(model.model.layers)]
    distinct = [untied(weight_OI) for weight_OI in dense]
    for method in METHODS:
        for pattern in PATTERNS:
            restore(model, distinct)
            same = linear_by_linear(model, method, parse_pattern(pattern), batches)
            sides = {name: partial(side, model, batches) for name, side in sides_of(method, pattern).items()}
            yield PruningRow(
                model=subject,
                method=method,
                pattern=pattern,
                times_s=interleave(sides, rounds, prepare=partial(restore, model, dense)),
                peak_bytes={name: peak_bytes(subject, method, pattern, name, threads) for name in sides},
                iou=same,
            )


def restore(model: PreTrainedModel, weights: Sequence[Tensor]) -> None:
    """Put these weights back into the linears of the blocks, and drop what the last run left behind."""
    for linear, weight_OI in zip(linears_of(model.model.layers), weights, strict=True):
        linear.weight.data.copy_(weight_OI)
    gc.collect()
