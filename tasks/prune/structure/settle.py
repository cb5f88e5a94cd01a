"""Whether a repair is kept: what is nearest to the dense model in every block need not have the lower loss as a whole.

A repair that lowers the error of each block can raise the loss of the model: where few tokens were fitted to, or where
a head went that nothing can stand in for. So the model is measured with its repair, with half of it, and with the plain
cut, on windows to which nothing was fitted, and the lowest loss stays.

Axes: O outputs of a reader, K its inputs that stay; B windows of a batch, T tokens.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.calibrate.importance.loss import nll, scored
from tasks.calibrate.walk import lent
from tasks.model.mode import evaluating
from tasks.prune.structure.rows import RepairRow

SHARES = (1.0, 0.5, 0.0)  # of the way from the plain cut to the repair; of equal losses the first is taken

Reader = tuple[nn.Linear, Tensor]  # repaired, and the weight (O, K) that the plain cut would leave it


@torch.no_grad()
def settle(
    model: PreTrainedModel, readers: Sequence[Reader], held_out: Sequence[Tensor], device: torch.device
) -> list[RepairRow]:
    """Leave every reader that share of its repair with which the model's loss on `held_out` is lowest; a row for each.

    `held_out`: ids, (windows, tokens) each. `device`: where the model is while it is measured, as a whole. No rows
    where no reader was repaired.
    """
    if not readers:
        return []
    repaired = [linear.weight.detach().clone() for linear, _ in readers]
    losses = []
    with evaluating(model), lent(model, device):
        for share in SHARES:
            _set(readers, repaired, share)
            losses.append(sum(nll(model, ids_BT).item() for ids_BT in held_out) / scored(held_out))
    best = min(range(len(SHARES)), key=lambda place: (math.isnan(losses[place]), losses[place]))
    _set(readers, repaired, SHARES[best])
    return [
        RepairRow(share=share, loss=loss, chosen=place == best)
        for place, (share, loss) in enumerate(zip(SHARES, losses, strict=True))
    ]


def _set(readers: Sequence[Reader], repaired: Sequence[Tensor], share: float) -> None:
    """At a share of 0 or 1 to the bit what it was."""
    for (linear, plain_OK), repaired_OK in zip(readers, repaired, strict=True):
        if share in (0.0, 1.0):
            linear.weight.copy_(repaired_OK if share else plain_OK)
        else:
            linear.weight.copy_(plain_OK.lerp(repaired_OK, share))
