"""Pruning the linears of one block, in either of two orders.

`observe_then_prune`, the published protocol: observe all linears of the unpruned block, prune them, and run the pruned
block again for the inputs of the next one. The first forward ends where the last linears have been seen, and the last
block is not run again, except for the first batch: on that, the error of the block's output is measured.

`prune_on_the_way`: one forward. Every batch is held just before the first of the linears that read one input, until all
batches have arrived there: these linears are pruned, and the forwards go on through them. So o, gate and down are
calibrated on the outputs of pruned linears, the second forward falls away, and one Gram exists at a time. The price is
memory: of every token, the residual and the input of the linears where it is held.

Axes: B windows of a batch, T tokens, D model width, O outputs, I inputs of a linear.
"""

import time
from contextlib import ExitStack, suppress
from functools import partial

from torch import Tensor, nn

from tasks.calibrate.hold import Held, hold
from tasks.calibrate.observers import Observer
from tasks.calibrate.walk import Walk
from tasks.handles import LinearRow
from tasks.model.anatomy import Anatomy, before_each
from tasks.prune.weight.pattern import Pattern
from tasks.prune.weight.pruner import Pruner

OBSERVED_TOKENS = 1 << 12  # at a time: an observer makes a float32 copy of them


def prune_unobserved(anatomy: Anatomy, index: int, pruner: Pruner, pattern: Pattern) -> list[LinearRow]:
    """For a pruner that looks at the weights alone: no forward."""
    return [_prune_linear(index, name, linear, pruner, pattern) for name, linear in anatomy.linears(index).items()]


def observe_then_prune(
    walk: Walk, anatomy: Anatomy, index: int, pruner: Pruner, pattern: Pattern
) -> tuple[list[LinearRow], float]:
    """The rows, and the relative error of the block's output on the first batch. The walk moves to the next block."""
    linears, groups = anatomy.linears(index), anatomy.shared_inputs[index]
    stats = {group[0]: _observer(pruner, linears[group[0]]) for group in groups}
    dense_BTD = _observe_all(walk, index, linears, stats)
    rows = []
    for group in groups:
        stat = stats.pop(group[0])
        rows += [_prune_linear(index, name, linears[name], pruner, pattern, stat) for name in group]
    steps = walk.step(index)
    error = _relative_error(next(steps), dense_BTD)
    if index + 1 < len(anatomy.blocks):
        for _ in steps:
            pass
    return rows, error


def prune_on_the_way(walk: Walk, anatomy: Anatomy, index: int, pruner: Pruner, pattern: Pattern) -> list[LinearRow]:
    """The rows. The walk moves on to the next block."""
    linears, groups = anatomy.linears(index), anatomy.shared_inputs[index]
    stats: dict[str, Observer] = {}
    rows: list[LinearRow] = []

    def see(name: str, x: Tensor) -> None:
        _observe(stats[name], x)
        hold()

    with ExitStack() as stack:
        stack.enter_context(before_each({group[0]: linears[group[0]] for group in groups}, see))
        batches = range(len(walk.hidden))
        forwards = [stack.enter_context(Held(partial(walk.advance, index, batch))) for batch in batches]
        for group in groups:
            stats[group[0]] = _observer(pruner, linears[group[0]])
            for forward in forwards:
                forward.resume()
            stat = stats.pop(group[0])
            rows += [_prune_linear(index, name, linears[name], pruner, pattern, stat) for name in group]
        for forward in forwards:
            forward.resume()
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
        error_from=None if stat is None else stat.remembers,
        seconds=seconds,
    )


class _Seen(Exception):  # noqa: N818 - not an error
    """Raised inside a block's forward once every linear has been seen: the rest of it would be for nothing."""


def _observe_all(walk: Walk, index: int, linears: dict[str, nn.Linear], stats: dict[str, Observer]) -> Tensor:
    """Show every observer the inputs of its linear in all batches; returns the block's output for the first batch."""
    *_, last = stats
    output_BTD: Tensor | None = None  # until then, a forward goes on to its end

    def see(name: str, x: Tensor) -> None:
        _observe(stats[name], x)
        if name == last and output_BTD is not None:
            raise _Seen

    with before_each({name: linears[name] for name in stats}, see):
        output_BTD = walk.output(index, 0)
        for batch in range(1, len(walk.hidden)):
            with suppress(_Seen):
                walk.output(index, batch)
    return output_BTD


def _observer(pruner: Pruner, linear: nn.Linear) -> Observer:
    assert pruner.observes is not None
    return pruner.observes(linear.in_features, linear.weight.device)


def _observe(stat: Observer, x: Tensor) -> None:
    for x_TI in x.reshape(-1, stat.in_features).split(OBSERVED_TOKENS):
        stat.update(x_TI)


def _relative_error(pruned_BTD: Tensor, dense_BTD: Tensor) -> float:
    """||pruned − dense||² / ||dense||²."""
    pruned_BTD, dense_BTD = pruned_BTD.double(), dense_BTD.double()
    return ((pruned_BTD - dense_BTD).square().sum() / dense_BTD.square().sum()).item()
