"""SparseGPT without the forward of a model: from the inputs of one block's linears to their pruned weights.

This is where the two differ: Hessians of seven linears, or of the four inputs that these read; Cholesky chains; sweeps.

Axes: T tokens, I inputs of a linear.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bench import textbook_walk
from bench.agreement import iou
from bench.models import SUBJECTS
from bench.sides import ESPALIER, TEXTBOOK
from bench.timing import interleave
from tasks.model.anatomy import dissect
from tasks.prune import PRUNERS
from tasks.prune.weight.pattern import Pattern, parse_pattern

PATTERNS = ("50%", "2:4")
TOKENS, TOKENS_AT_ONCE = 4096, 1024

Shared = list[tuple[tuple[nn.Linear, ...], tuple[Tensor, ...]]]  # the linears that read one input, and its batches


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """One row per model and pattern: the first block on 4096 tokens of noise, which each group of linears shares."""

    model: str
    pattern: str
    times_s: dict[str, list[float]]  # side -> each round, seconds
    iou: float


def compare_sweeps(subject: str, rounds: int) -> Iterator[SweepRow]:
    """PATTERNS on the first block. Comparing the keeps comes first and warms both sides up."""
    anatomy = dissect(SUBJECTS[subject].load())
    linears = anatomy.linears(0)
    shared: Shared = []
    for group in anatomy.shared_inputs[0]:
        x_TI = torch.randn(TOKENS, linears[group[0]].in_features, generator=torch.Generator().manual_seed(0))
        shared.append((tuple(linears[name] for name in group), x_TI.split(TOKENS_AT_ONCE)))
    for text in PATTERNS:
        sides = {
            TEXTBOOK: partial(_textbook, shared, parse_pattern(text)),
            ESPALIER: partial(_espalier, shared, parse_pattern(text)),
        }
        keeps = [torch.cat([(weight_OI != 0).flatten() for weight_OI in side()]) for side in sides.values()]
        yield SweepRow(model=subject, pattern=text, times_s=interleave(sides, rounds), iou=iou(*keeps))


@torch.no_grad()
def _textbook(shared: Shared, pattern: Pattern) -> list[Tensor]:
    pruned = []
    for linears, batches in shared:
        for linear in linears:
            seen = textbook_walk.SparseGPT(linear)
            for x_TI in batches:
                seen.update(x_TI)
            pruned.append(seen.pruned(pattern))
    return pruned


@torch.no_grad()
def _espalier(shared: Shared, pattern: Pattern) -> list[Tensor]:
    pruner = PRUNERS["sparsegpt"]()
    pruned = []
    for linears, batches in shared:
        stat = pruner.observes(linears[0].in_features, "cpu")
        for x_TI in batches:
            stat.update(x_TI)
        pruned += [pruner.prune(linear.weight, stat, pattern) for linear in linears]
    return pruned
