"""Selection alone, from a score to a keep, on every shape that a linear of the model has.

Axes: O outputs, I inputs of a linear.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from bench import textbook
from bench.agreement import iou, untied
from bench.models import SUBJECTS
from bench.sides import ESPALIER, TEXTBOOK
from bench.textbook_walk import linears_of
from bench.timing import calls_that_fill, interleave
from tasks.prune.weight.pattern import parse_pattern

PATTERNS = ("50%", "50%@matrix", "2:4", "4:8")
LEAST_SECONDS = 0.02  # of one measurement


@dataclass(frozen=True, kw_only=True)
class SelectionRow:
    """One row per model, shape of a linear, method and pattern. Both sides select from the same score."""

    model: str
    shape: tuple[int, int]
    method: str
    pattern: str
    times_s: dict[str, list[float]]  # side -> each round, seconds a call
    iou: float  # of the two keeps of untied scores


def compare_selections(subject: str, rounds: int) -> Iterator[SelectionRow]:
    """One linear of each shape × magnitude and Wanda × PATTERNS. Wanda's norms are made up."""
    linears = linears_of(SUBJECTS[subject].load().model.layers)
    weights = {(linear.out_features, linear.in_features): linear.weight.detach() for linear in linears}
    for shape, weight_OI in weights.items():
        norm_I = torch.rand(shape[1], generator=torch.Generator().manual_seed(0)) + 0.5
        scores = {
            "magnitude": textbook.magnitude_score(weight_OI),
            "wanda": textbook.wanda_score(weight_OI, norm_I),
        }
        for method, score_OI in scores.items():
            for text in PATTERNS:
                pattern = parse_pattern(text)
                distinct_OI = untied(score_OI)
                same = iou(textbook.keep(distinct_OI, pattern), pattern.keep(distinct_OI))
                sides = {TEXTBOOK: partial(textbook.keep, score_OI, pattern), ESPALIER: partial(pattern.keep, score_OI)}
                times = interleave(sides, rounds, calls=calls_that_fill(LEAST_SECONDS, sides))
                yield SelectionRow(model=subject, shape=shape, method=method, pattern=text, times_s=times, iou=same)
