"""Pruning the linears of one block, in either of two orders.

`observe_then_prune`, the published protocol: observe all linears of the unpruned block, prune them, and run the pruned
block again for the inputs of the next one: two forwards.

`prune_on_the_way`: one forward, of all windows at once. Just before the first of the linears that read one input runs,
every token has arrived there: these linears are observed and pruned, and the forward goes on through them. So o, gate
and down are calibrated on the outputs of pruned linears, the second forward falls away, and one Gram exists at a time.
The price is memory for the intermediate values of all windows in one block.

Axes: B windows of a batch, T tokens, D model width, O outputs, I inputs of a linear.
"""

import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tasks.calibrate.observers import Observer
from tasks.calibrate.walk import Walk
from tasks.handles import LinearRow
from tasks.model.anatomy import Anatomy, before_each
from tasks.prune.weight.pattern import Pattern
from tasks.prune.weight.pruner import Pruner

OBSERVED_TOKENS = 1 << 14  # at a time: an observer makes a float32 copy of them


def prune_unobserved(anatomy: Anatomy, index: int, pruner: Pruner, pattern: Pattern) -> list[LinearRow]:
    """For a pruner that looks at the weights alone: no forward."""
    return [_prune_linear(index, name, linear, pruner, pattern) for name, linear in anatomy.linears(index).items()]


def observe_then_prune(
    walk: Walk, anatomy: Anatomy, index: int, pruner: Pruner, pattern: Pattern
) -> tuple[list[LinearRow], float]:
    """The rows, and the relative error of the block's output on its inputs; the walk then stands behind the block.

    The last block runs again like the others: nobody needs its outputs, but its error belongs to the record.
    """
    linears, groups = anatomy.linears(index), anatomy.shared_inputs[index]
    stats = {group[0]: _observer(pruner, linears[group[0]]) for group in groups}
    with before_each({name: linears[name] for name in stats}, lambda name, x: _observe(stats[name], x)):
        dense = [output_BTD.cpu() for output_BTD in walk.outputs(index)]
    rows = []
    for group in groups:
        stat = stats.pop(group[0])
        rows += [_prune_linear(index, name, linears[name], pruner, pattern, stat) for name in group]
    return rows, _relative_error(walk.step(index), dense)


def prune_on_the_way(walk: Walk, anatomy: Anatomy, index: int, pruner: Pruner, pattern: Pattern) -> list[LinearRow]:
    """The rows; the walk, which holds one batch of all windows, then stands behind the block."""
    linears = anatomy.linears(index)
    groups = {group[0]: group for group in anatomy.shared_inputs[index]}
    rows: list[LinearRow] = []

    def observe_and_prune(first: str, x: Tensor) -> None:
        stat = _observer(pruner, linears[first])
        _observe(stat, x)
        rows.extend(_prune_linear(index, name, linears[name], pruner, pattern, stat) for name in groups[first])

    with before_each({first: linears[first] for first in groups}, observe_and_prune):
        for _ in walk.step(index):
            pass
    return rows


def output_error(weight_OI: Tensor, pruned_OI: Tensor, stat: Observer) -> float:
    """||(W' − W) X||² / ||W X||² on the tokens that `stat` saw: exact from a Gram, from its diagonal with norms alone.

    0 where W X is zero: no pruner turns that into anything else.
    """
    energy = stat.output_energy(weight_OI).item()
    return stat.output_energy(pruned_OI - weight_OI).item() / energy if energy > 0 else 0.0


def _prune_linear(
    index: int, name: str, linear: nn.Linear, pruner: Pruner, pattern: Pattern, stat: Observer | None = None
) -> LinearRow:
    started = time.perf_counter()
    weight_OI = linear.weight.detach()
    try:
        pruned_OI = pruner.prune(weight_OI, stat, pattern)
    except ValueError as cause:
        raise ValueError(f"block {index}, {name}: {cause}") from cause
    seconds = time.perf_counter() - started
    error = None if stat is None else output_error(weight_OI, pruned_OI, stat)
    zeros = weight_OI.numel() - int(pruned_OI.count_nonzero())
    linear.weight.data.copy_(pruned_OI)
    return LinearRow(
        block=index,
        linear=name,
        out_features=linear.out_features,
        in_features=linear.in_features,
        zeros=zeros,
        sparsity=zeros / weight_OI.numel(),
        error=error,
        seconds=seconds,
    )


def _observer(pruner: Pruner, linear: nn.Linear) -> Observer:
    assert pruner.observes is not None
    return pruner.observes(linear.in_features, linear.weight.device)


def _observe(stat: Observer, x: Tensor) -> None:
    for x_TI in x.reshape(-1, stat.in_features).split(OBSERVED_TOKENS):
        stat.update(x_TI)


def _relative_error(pruned: Iterable[Tensor], dense: list[Tensor]) -> float:
    """||pruned − dense||² / ||dense||² over all batches; `dense` is emptied on the way."""
    dense.reverse()
    error = energy = 0.0
    for pruned_BTD in pruned:
        dense_BTD = dense.pop().to(pruned_BTD.device, torch.float32)
        error += (pruned_BTD.float() - dense_BTD).square().sum(dtype=torch.float64).item()
        energy += dense_BTD.square().sum(dtype=torch.float64).item()
    return error / energy
