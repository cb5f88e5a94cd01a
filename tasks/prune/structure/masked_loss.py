"""The loss of a model with units masked: what it would cost to cut them, before anything is cut.

Axes: B windows of a batch, T tokens of a window.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.calibrate.importance.loss import nll, scored
from tasks.model.mode import evaluating
from tasks.model.units import BlockUnits
from tasks.prune.structure.width import Kept, masked

WINDOWS = 16  # that are measured on, about


def masked_loss(model: PreTrainedModel, kept: Kept, units: Sequence[BlockUnits], batches: Sequence[Tensor]) -> float:
    """Nats per token on `batches`, (windows, tokens) each, with what is not in `kept` masked. `units`: of `model`."""
    with masked(model, kept, units):
        return loss_of(model, batches)


@torch.no_grad()
def loss_of(model: PreTrainedModel, batches: Sequence[Tensor]) -> float:
    """Nats per token."""
    with evaluating(model):
        return sum(nll(model, ids_BT).item() for ids_BT in batches) / scored(batches)


def step_to_some(batches: Sequence[Tensor]) -> int:
    """Every so manieth of `batches` makes about `WINDOWS` windows, spread evenly.

    Raises ValueError for what are no batches of ids, and for windows of a single token.
    """
    for ids_BT in batches:
        if ids_BT.dim() != 2 or ids_BT.is_floating_point() or ids_BT.shape[1] < 2:
            given = f"{ids_BT.dtype} of shape {tuple(ids_BT.shape)}"
            raise ValueError(f"batches: {given} given, valid are ids of shape (windows, 2 or more tokens)")
    return max(1, min(sum(len(ids_BT) for ids_BT in batches) // WINDOWS, len(batches) // 2))
