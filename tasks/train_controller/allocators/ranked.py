"""How many rungs each weight outlasts, by the scores of a pruner: one walk through the dense model.

Axes: O outputs, I inputs of a linear, N all weights of a part.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.calibrate.walk import Walk, check_walk, lent
from tasks.model.anatomy import Anatomy, before_each, dissect
from tasks.model.mode import evaluating
from tasks.prune.weight.budget import attention_linears
from tasks.prune.weight.pattern import Pattern
from tasks.prune.weight.pruner import Pruner
from tasks.train_controller.allocators.features import Summary, summary_of
from tasks.train_controller.allocators.problem import Part
from tasks.train_controller.allocators.weight_rungs import halves_of, level_pattern, whole_of


@dataclass(frozen=True, kw_only=True)
class RankedPart:
    """The attention or the FFN of a block: by linear the rungs that each weight outlasts, uint8 (O, I)."""

    part: Part
    outlasted: Mapping[str, Tensor]
    scores: Summary


@torch.no_grad()
def ranked(
    model: PreTrainedModel,
    pruner: Pruner,
    pattern: Pattern,
    batches: Sequence[Tensor],
    device: torch.device | str | None = None,
) -> Iterator[RankedPart]:
    """The parts of `model`, which stays as it is, in their order; one block is looked at at a time, on `device`.

    A pruner that updates as it goes along (SparseGPT) is taken by its scores before any weight has gone. Raises
    ValueError for a pattern without rungs, scores that are no finite numbers, no batches where the pruner observes
    inputs, and a model whose blocks cannot be walked.
    """
    whole_of(pattern)  # raises before any work
    if pruner.observes is not None and not batches:
        raise ValueError(f"batches: none given; {pruner} needs calibration windows")
    with evaluating(model):
        anatomy = dissect(model)
        walk = None
        if pruner.observes is not None:
            check_walk(model, anatomy, batches[0])
            walk = Walk(model, anatomy, batches, device)
        for index, block in enumerate(anatomy.blocks):
            with lent(block, torch.device(device or model.device)):
                stats = _observed(walk, anatomy, index, pruner) if walk is not None else {}
                halves = halves_of([anatomy.linears(index)], [attention_linears(block)])
                for part, linears in halves.items():
                    yield _ranked(Part(block=index, kind=part.kind), linears, pruner, pattern, stats)


def _ranked(
    part: Part, linears: Mapping[str, nn.Linear], pruner: Pruner, pattern: Pattern, stats: Mapping[str, object]
) -> RankedPart:
    outlasted, scores = {}, []
    for name, linear in linears.items():
        score_OI = pruner.checked_score(linear.weight.detach(), stats.get(name))
        keeps = (level_pattern(pattern, rungs).keep(score_OI) for rungs in range(1, whole_of(pattern)))
        outlasted[name] = sum((keep_OI.to(torch.uint8) for keep_OI in keeps), torch.zeros_like(score_OI).byte()).cpu()
        scores.append(score_OI.flatten())
    return RankedPart(part=part, outlasted=outlasted, scores=summary_of(torch.cat(scores)))


def _observed(walk: Walk, anatomy: Anatomy, index: int, pruner: Pruner) -> dict[str, object]:
    """For each linear what the pruner has to know of its input, shared by those that read one. The walk moves on."""
    assert pruner.observes is not None
    linears = anatomy.linears(index)
    groups = {group[0]: group for group in anatomy.shared_inputs[index]}
    stats = {first: pruner.observes(linears[first].in_features, walk.device) for first in groups}
    with before_each({first: linears[first] for first in groups}, lambda first, x: stats[first].see(x)):
        for _ in walk.step(index):
            pass
    return {name: stats[first] for first, group in groups.items() for name in group}
