"""How far a model can be cut in head groups and channels, and whether blocks that then differ can be written."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from tasks.model.units import units_of
from tasks.prune.structure.budget import measured
from tasks.prune.structure.ladder import Ladder, ladders_of
from tasks.prune.structure.outline import outline_of
from tasks.prune.structure.per_layer import per_layer
from tasks.prune.structure.width import slice_units

KINDS = ("head_groups", "channels")


@dataclass(frozen=True, kw_only=True)
class Reach:
    """In parameters: of the whole model, of its blocks, the least that can be left of it, the smallest that can go."""

    parameters: int
    of_blocks: int
    least: int
    unit: int


def reach_of(model: PreTrainedModel, *, round_to: int) -> Reach:
    """The reach of `model`, whose channels go by steps of `round_to`. It stays as it is.

    Raises ValueError as `measured` and `ladders_of`, for a model of which nothing can go, and for one whose blocks
    cannot be exported with widths of their own.
    """
    meter, widths = measured(model, "parameters")
    able = {
        of_block.block: [ladder for kind, ladder in ladders.items() if kind in KINDS and ladder.step]
        for has, of_block in zip(widths, units_of(model), strict=True)
        if (ladders := ladders_of(meter, has, of_block, round_to))
    }
    every = [ladder for ladders in able.values() for ladder in ladders]
    if not every:
        raise ValueError(f"round_to: {round_to} given, no block has more than one head group or step of channels")
    _check_export(model, *next((block, ladders) for block, ladders in able.items() if ladders))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Reach(
        parameters=parameters,
        of_blocks=sum(map(meter.of_block, widths)),
        least=parameters - sum(ladder.removed(ladder.counts[-1]) for ladder in every),
        unit=min(ladder.step * ladder.each for ladder in every),
    )


def _check_export(model: PreTrainedModel, block: int, ladders: Sequence[Ladder]) -> None:
    """One block is cut as far as can be, and the cut undone."""
    with slice_units(model, {block: {ladder.kind: torch.arange(ladder.counts[-1]) for ladder in ladders}}):
        try:
            per_layer(outline_of(model))
        except ValueError as error:
            raise ValueError(
                f"model: its blocks cannot be exported with widths of their own, which cuts in stages need: {error}"
            ) from error
