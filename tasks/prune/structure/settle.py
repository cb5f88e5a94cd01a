"""Whether a repair is kept: what is nearest to the dense model in every block need not have the lower loss as a whole.

A repair that lowers the error of each block can raise the loss of the model: where few tokens were fitted to, or where
a head went that nothing can stand in for. So the model is measured with its repair, with half of it, and with the plain
cut, on windows to which nothing was fitted. The whole repair stays unless less of it is clearly better: by more than
two standard errors of the difference, window by window.

Axes: O outputs of a reader, K its inputs that stay; B windows of a batch, T tokens.
"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.calibrate.importance.loss import nll, scored
from tasks.calibrate.walk import lent
from tasks.model.mode import evaluating
from tasks.prune.structure.rows import RepairRow

SHARES = (1.0, 0.5, 0.0)  # of the way from the plain cut to the repair

Reader = tuple[nn.Linear, Tensor]  # repaired, and the weight (O, K) that the plain cut would leave it


@torch.no_grad()
def settle(
    model: PreTrainedModel, readers: Sequence[Reader], held_out: Sequence[Tensor], device: torch.device
) -> list[RepairRow]:
    """Leave every reader the share of its repair with which the model does best on `held_out`; a row for each share.

    `held_out`: ids, (windows, tokens) each. `device`: where the model is while it is measured, as a whole. No rows
    where no reader was repaired.
    """
    if not readers:
        return []
    repaired = [linear.weight.detach().clone() for linear, _ in readers]
    losses: list[list[float]] = []  # of each window
    with evaluating(model), lent(model, device):
        for share in SHARES:
            _set(readers, repaired, share)
            windows = [window_1T for ids_BT in held_out for window_1T in ids_BT.split(1)]
            losses.append([nll(model, window_1T).item() / scored([window_1T]) for window_1T in windows])
    best = _best(losses)
    _set(readers, repaired, SHARES[best])
    return [
        RepairRow(share=share, loss=fmean(loss), chosen=place == best)
        for place, (share, loss) in enumerate(zip(SHARES, losses, strict=True))
    ]


def _best(losses: Sequence[Sequence[float]]) -> int:
    """The first, unless another is lower by more than two standard errors of their difference; then the lowest."""
    whole, means = losses[0], [math.inf if math.isnan(fmean(each)) else fmean(each) for each in losses]
    clearly = [
        place
        for place, each in enumerate(losses)
        if place and means[place] < means[0] - 2 * _standard_error([a - b for a, b in zip(whole, each, strict=True)])
    ]
    return min([0, *clearly], key=means.__getitem__)


def _standard_error(differences: Sequence[float]) -> float:
    """Of their mean; 0 of a single one, or where one is no number."""
    if len(differences) < 2 or not all(map(math.isfinite, differences)):
        return 0.0
    return stdev(differences) / math.sqrt(len(differences))


def _set(readers: Sequence[Reader], repaired: Sequence[Tensor], share: float) -> None:
    """At a share of 0 or 1 to the bit what it was."""
    for (linear, plain_OK), repaired_OK in zip(readers, repaired, strict=True):
        if share in (0.0, 1.0):
            linear.weight.copy_(repaired_OK if share else plain_OK)
        else:
            linear.weight.copy_(plain_OK.lerp(repaired_OK, share))
