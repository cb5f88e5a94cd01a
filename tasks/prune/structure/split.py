"""How a budget is divided between heads and channels: by the loss that each way costs, measured.

By size alone a model of few head groups loses one of them as soon as it rounds up, whatever it is worth. So every way
that meets the budget is tried on some of the calibration windows with the units that would go masked, and the lowest
loss wins. A repair mends more of what channels did than of what heads did, or less: the two lowest are cut and repaired
on a few other windows where a repair is to follow, and what is lower then wins.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.calibrate.walk import lent
from tasks.model.units import BlockUnits, units_of
from tasks.prune.structure.apply import slice_model
from tasks.prune.structure.choose import Choice, Scores, Share, choices, choose
from tasks.prune.structure.masked_loss import loss_of, masked_loss, step_to_some
from tasks.prune.structure.rows import SplitRow
from tasks.prune.structure.slice import Slice
from tasks.prune.structure.width import Kept

MOST = 8  # ways
REPAIRED = 2  # of them


def choose_split(
    model: PreTrainedModel,
    scores: Scores,
    budget: Share,
    batches: Sequence[Tensor],
    *,
    cost: str = "parameters",
    kinds: Sequence[str] = ("head_groups", "channels"),
    round_to: int = 64,
    repair: bool = False,
    able: Callable[[Choice], bool] = lambda choice: True,
    device: torch.device | str | None = None,
) -> tuple[Choice, list[SplitRow]]:
    """Of the ways that `choices` finds the one of the lowest loss, and a row for each; no rows where there is but one.

    `batches`: ids, (windows, tokens) each; without any nothing is measured, and the choice is that of `choose`.
    `able`: says which of the ways may be taken; where it says none, all.
    `repair`: whether a repair follows; of fewer than four batches none are left to repair a trial on.
    `device`: where the model is while it is measured, as a whole; None for where it is. The model stays as it is.

    Raises ValueError as `choose`, and for batches of other shapes or of windows of a single token.
    """
    if not batches:
        return choose(model, scores, budget, cost=cost, kinds=kinds, round_to=round_to), []
    every = choices(model, scores, budget, cost=cost, kinds=kinds, round_to=round_to, most=MOST)
    options = [option for option in every if able(option)] or every
    if len(options) == 1:
        return options[0], []
    place, units = torch.device(device or model.device), units_of(model)
    measured, to_fit = _divided(batches, repair)
    with lent(model, place):
        losses = [masked_loss(model, option.kept, units, measured) for option in options]
    repaired: dict[int, float] = {}
    if repair and len(to_fit) > 1:
        repaired = {
            number: _repaired_loss(model, options[number].kept, to_fit, measured, place)
            for number in _lowest(dict(enumerate(losses)))[:REPAIRED]
        }
    best, *_ = _lowest(repaired or dict(enumerate(losses)))
    heads = next(kind for kind in kinds if kind != "channels")
    rows = [
        SplitRow(
            split=number,
            kind=heads,
            **_facts(option, units, heads),
            loss=losses[number],
            repaired_loss=repaired.get(number),
            chosen=number == best,
        )
        for number, option in enumerate(options)
    ]
    return options[best], rows


def _repaired_loss(
    model: PreTrainedModel, kept: Kept, to_fit: Sequence[Tensor], batches: Sequence[Tensor], device: torch.device
) -> float:
    """Of the model when it is cut and repaired; it is whole again then."""
    made: list[Slice] = []
    slice_model(model, kept, to_fit, device=device, on_block=lambda _, slices: made.extend(slices))
    with lent(model, device):
        loss = loss_of(model, batches)
    for each in reversed(made):
        each.restore()
    return loss


def _lowest(losses: Mapping[int, float]) -> list[int]:
    """The numbers by their losses, the lowest first; what is no number is last."""
    return sorted(losses, key=lambda number: (math.isnan(losses[number]), losses[number]))


def _divided(batches: Sequence[Tensor], repair: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Whole batches, spread evenly: those to measure on, and others to repair on. Raises as `step_to_some`."""
    step = max(step_to_some(batches), 2 if repair else 1)
    return list(batches[::step]), list(batches[step // 2 :: step]) if repair else []


def _facts(choice: Choice, units: Sequence[BlockUnits], heads: str) -> dict[str, Any]:
    """The columns of a row that tell what goes."""
    channels = sum(of_block.channels.count for of_block in units if of_block.channels)
    return {
        "heads_removed": _removed(choice.kept, units, heads) / len(units),
        "channels_removed": _removed(choice.kept, units, "channels") / channels,
        "parameters": choice.parameters,
    }


def _removed(kept: Kept, units: Sequence[BlockUnits], kind: str) -> int:
    """Units of a kind, of all blocks."""
    cut = [(units[block].of(kind).count, kinds[kind]) for block, kinds in kept.items() if kind in kinds]
    return sum(count - len(kept_U) for count, kept_U in cut)
