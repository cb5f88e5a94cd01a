"""Pruning the linears that read one input, once that input has been observed, and what is recorded of each.

Axes: O outputs, I inputs of the linear.
"""

import time
from collections.abc import Mapping

from torch import Tensor, nn

from tasks.calibrate.observers import Observer
from tasks.handles import LinearRow
from tasks.prune.weight.pattern import Pattern
from tasks.prune.weight.recipe import Recipe
from tasks.prune.weight.update import Updated


def prune_linears(
    index: int,
    linears: Mapping[str, nn.Linear],
    recipe: Recipe,
    patterns: Mapping[str, Pattern],
    stat: Observer | None,
    order_I: Tensor | None = None,
) -> list[LinearRow]:
    """Prune each linear in place. `order_I`: the order of inputs in which the pattern is laid over it; None: as it is.

    `index` is the number of the block. Raises ValueError that names the block and the linear.
    """
    if stat is not None and order_I is not None:
        stat = stat.reordered(order_I)
    rows = []
    for name, linear in linears.items():
        try:
            rows.append(_prune(index, name, linear, recipe, patterns[name], stat, order_I))
        except ValueError as cause:
            raise ValueError(f"block {index}, {name}: {cause}") from cause
    return rows


def output_error(weight_OI: Tensor, pruned_OI: Tensor, stat: Observer) -> float:
    """||(W' − W) X||² / ||W X||² on the tokens that `stat` saw: exact from a Gram, from its diagonal with norms alone.

    0 where W X is zero: no pruner turns that into anything else.
    """
    energy = stat.output_energy(weight_OI).item()
    return stat.output_energy(pruned_OI - weight_OI).item() / energy if energy > 0 else 0.0


def _prune(
    index: int,
    name: str,
    linear: nn.Linear,
    recipe: Recipe,
    pattern: Pattern,
    stat: Observer | None,
    order_I: Tensor | None,
) -> LinearRow:
    started = time.perf_counter()
    weight_OI = linear.weight.detach() if order_I is None else linear.weight.detach()[:, order_I]
    pruned_OI, keep_OI = recipe.pruner.prune_and_keep(weight_OI, stat, pattern)
    made = Updated(weight_OI=pruned_OI)
    if recipe.update is not None:
        made = recipe.update.update(weight_OI, keep_OI, stat)
    seconds = time.perf_counter() - started
    zeros = weight_OI.numel() - int(made.weight_OI.count_nonzero())
    if order_I is None:
        linear.weight.data.copy_(made.weight_OI)
    else:
        linear.weight.data[:, order_I] = made.weight_OI
    return LinearRow(
        block=index,
        linear=name,
        out_features=linear.out_features,
        in_features=linear.in_features,
        zeros=zeros,
        sparsity=zeros / weight_OI.numel(),
        error=None if stat is None else output_error(weight_OI, made.weight_OI, stat),
        error_from=None if stat is None else stat.remembers,
        sweep_error=None if stat is None or made.swept_OI is None else output_error(weight_OI, made.swept_OI, stat),
        damp=made.damp,
        seconds=seconds,
    )
