"""How a budget is divided between heads and channels: by the loss that each way costs, measured.

By size alone a model of few head groups loses one of them as soon as it rounds up, whatever it is worth. So every way
that meets the budget is tried on some of the calibration windows with the units that would go masked, and the lowest
loss wins. Readers are not repaired for that: a repair takes as long as the whole cut.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.calibrate.importance.loss import nll, scored
from tasks.calibrate.walk import lent
from tasks.model.mode import evaluating
from tasks.model.units import BlockUnits, units_of
from tasks.prune.structure.choose import Choice, Scores, Share, choices
from tasks.prune.structure.rows import SplitRow
from tasks.prune.structure.width import Kept, masked

WINDOWS = 16  # that each way is tried on, about
MOST = 8  # ways


def choose_split(
    model: PreTrainedModel,
    scores: Scores,
    budget: Share,
    batches: Sequence[Tensor],
    *,
    kinds: Sequence[str] = ("head_groups", "channels"),
    round_to: int = 64,
    device: torch.device | str | None = None,
) -> tuple[Choice, list[SplitRow]]:
    """Of the ways that `choices` finds the one of the lowest loss, and a row for each; no rows where there is but one.

    `batches`: ids, (windows, tokens) each; without any nothing is measured, and the choice is that of `choose`.
    `device`: where the model is while it is measured, as a whole; None for where it is. The model stays as it is.

    Raises ValueError as `choose`, and for batches of other shapes or of windows of a single token.
    """
    options = choices(model, scores, budget, kinds=kinds, round_to=round_to, most=MOST)
    if len(options) == 1 or not batches:
        return options[0], []
    units = units_of(model)
    windows = _some(batches)
    with lent(model, torch.device(device or model.device)), evaluating(model):
        losses = [_loss(model, option.kept, units, windows) for option in options]
    best = int(torch.tensor(losses).nan_to_num(nan=torch.inf).argmin())
    heads = next(kind for kind in kinds if kind != "channels")
    facts = [_facts(option, units, heads) for option in options]
    rows = [
        SplitRow(split=number, kind=heads, **of_option, loss=losses[number], chosen=number == best)
        for number, of_option in enumerate(facts)
    ]
    return options[best], rows


@torch.no_grad()
def _loss(model: PreTrainedModel, kept: Kept, units: Sequence[BlockUnits], batches: Sequence[Tensor]) -> float:
    """Nats per token without the other units."""
    with masked(model, kept, units):
        return sum(nll(model, ids_BT).double().item() for ids_BT in batches) / scored(batches)


def _some(batches: Sequence[Tensor]) -> list[Tensor]:
    """Whole batches, spread evenly, that hold about `WINDOWS` windows between them."""
    for ids_BT in batches:
        if ids_BT.dim() != 2 or ids_BT.is_floating_point() or ids_BT.shape[1] < 2:
            given = f"{ids_BT.dtype} of shape {tuple(ids_BT.shape)}"
            raise ValueError(f"batches: {given} given, valid are ids of shape (windows, 2 or more tokens)")
    windows = sum(len(ids_BT) for ids_BT in batches)
    return list(batches[:: max(1, windows // WINDOWS)])


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
