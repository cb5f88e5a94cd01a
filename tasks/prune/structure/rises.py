"""Which blocks can spare units: how far the loss rises without the lowest units of each, measured.

Scores order the units of a block. Those of most importances have another scale in each block, as the inputs of linears
grow with depth, and even where they have one a sum of scores says little of a block that has lost half. So the blocks
are compared by the loss: each is probed by itself, with 1, 2, 3, … of its lowest units masked and all else whole. Of
the ways to lose a number of units in all, that of the least sum of rises is found exactly.

Axes: U units of one kind in a block.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.calibrate.walk import lent
from tasks.model.units import units_of
from tasks.prune.structure.masked_loss import loss_of, masked_loss, step_to_some

PROBES = 8  # of a block at most: what lies between two of them rises evenly

Rises = Sequence[Sequence[float]]  # of each block, without 0, 1, 2, … of its lowest units; one of them stays


def measure_rises(
    model: PreTrainedModel,
    scores: Sequence[Mapping[str, Tensor]],
    kind: str,
    batches: Sequence[Tensor],
    *,
    device: torch.device | str | None = None,
) -> Rises:
    """The rise of the loss of `model`, in nats per token, as each block loses more of its units of a `kind`.

    `scores`: of each block, by kind, (U,). `batches`: ids, (windows, tokens) each, of which some are measured on.
    `device`: where the model is meanwhile, as a whole; None for where it is. The model stays as it is.

    Raises ValueError for a block without such units, for no batches, and for those of other shapes.
    """
    if not batches:
        raise ValueError("batches: none given, valid is one or more to measure the loss on")
    units, some = units_of(model), batches[:: step_to_some(batches)]
    with lent(model, torch.device(device or model.device)):
        whole, rises = loss_of(model, some), []
        for of_block in units:
            count = of_block.of(kind).count
            order_U = scores[of_block.block][kind].argsort(stable=True)
            probed = sorted({round(place * (count - 1) / PROBES) for place in range(1, PROBES + 1)} - {0})
            losses = [
                masked_loss(model, {of_block.block: {kind: order_U[gone:].sort().values}}, units, some)
                for gone in probed
            ]
            rise = np.interp(range(count), [0, *probed], [0.0, *(loss - whole for loss in losses)])
            rises.append(rise.tolist())
    return rises


def least_rise(rises: Rises, number: int) -> list[int]:
    """How many units go of each block, `number` in all, so that the sum of the rises is the least there is.

    Of ways that are equal the later blocks lose more. Raises ValueError where so many cannot go.
    """
    most = sum(len(of_block) - 1 for of_block in rises)
    if not 0 <= number <= most:
        raise ValueError(f"number: {number} given, valid is 0 to {most}")
    ways: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}  # of the blocks so far, by how many go: the best
    for of_block in rises:
        options = [
            (gone + more, total + rise, [*way, more])
            for gone, (total, way) in ways.items()
            for more, rise in enumerate(of_block)
        ]
        ways = {}
        for gone, total, way in sorted(options, key=lambda option: option[1:]):
            ways.setdefault(gone, (total, way))
    return ways[number][1]
