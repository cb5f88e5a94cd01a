"""Pruning the linears that read one input, once that input has been observed, and what is recorded of each.

Axes: O outputs, I inputs of the linear.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tasks.calibrate.observers import Observer
from tasks.handles import LinearRow
from tasks.prune.factors import SparseLowRank
from tasks.prune.weight.fold import Folding
from tasks.prune.weight.pattern import Pattern
from tasks.prune.weight.permute import permute, permute_within
from tasks.prune.weight.recipe import Recipe
from tasks.prune.weight.update import Updated


@dataclass(frozen=True, kw_only=True)
class PrunedLinear:
    """Its row, and what has to be stored beside its weight: an order of its inputs, or its sparse part and factors.

    `tensor` is the weight's name in the model, such as model.layers.0.self_attn.q_proj.weight.
    """

    row: LinearRow
    tensor: str
    order_I: Tensor | None = None
    factors: SparseLowRank | None = None


def prune_linears(
    index: int,
    prefix: str,
    linears: Mapping[str, nn.Linear],
    recipe: Recipe,
    patterns: Mapping[str, Pattern],
    stat: Observer | None,
    order_I: Tensor | None = None,
) -> list[PrunedLinear]:
    """Prune each linear in place. `order_I`: the order of inputs in which the pattern is laid over it; None: as it is.

    `index` is the number of the block, `prefix` what stands before the linears' names in the model. Raises ValueError
    that names the block and the linear.
    """
    if stat is not None and order_I is not None:
        stat = stat.reordered(order_I)
    pruned = []
    for name, linear in linears.items():
        with _named(index, name):
            started = time.perf_counter()
            weight_OI = linear.weight.detach() if order_I is None else linear.weight.detach()[:, order_I]
            made, factors = _prune(name, weight_OI, recipe, patterns[name], stat)
            seconds = time.perf_counter() - started
            counted_OI = made.weight_OI if factors is None or factors.pattern is None else factors.sparse_OI
            zeros = weight_OI.numel() - int(counted_OI.count_nonzero())
            row = LinearRow(
                block=index,
                linear=name,
                out_features=linear.out_features,
                in_features=linear.in_features,
                zeros=zeros,
                sparsity=zeros / weight_OI.numel(),
                error=_error(weight_OI, made.weight_OI, stat),
                error_from=None if stat is None else stat.remembers,
                sweep_error=_error(weight_OI, made.swept_OI, stat),
                damp=made.damp,
                rank=None if factors is None else factors.rank,
                order=None if order_I is None else "gather",
                seconds=seconds,
            )
            _write(linear, made.weight_OI, order_I)
        pruned.append(PrunedLinear(row=row, tensor=f"{prefix}.{name}.weight", order_I=order_I, factors=factors))
    return pruned


def find_order(
    index: int,
    linears: Mapping[str, nn.Linear],
    recipe: Recipe,
    pattern: Pattern,
    stat: Observer | None,
    folding: Folding | None,
) -> Tensor | None:
    """The order of the input that these linears read under which n:m keeps most of their scores; None: as it is.

    Where it can be folded into the linears before, it stays within the heads that these make. Raises ValueError that
    names the block and the linear.
    """
    assert recipe.pruner is not None  # a recipe that permutes has one
    scores = []
    for name, linear in linears.items():
        with _named(index, name):
            scores.append(recipe.pruner.checked_score(linear.weight.detach(), stat))
    score_OI = torch.cat(scores)
    if folding is not None:
        order_I = permute_within(score_OI, pattern, folding.width, folding.shared)
    else:
        order_I = permute(score_OI, pattern)
    return None if torch.equal(order_I, torch.arange(len(order_I)).to(order_I)) else order_I


def output_error(weight_OI: Tensor, pruned_OI: Tensor, stat: Observer) -> float:
    """||(W' − W) X||² / ||W X||² on the tokens that `stat` saw: exact from a Gram, from its diagonal with norms alone.

    0 where W X is zero: no pruner turns that into anything else.
    """
    energy = stat.output_energy(weight_OI).item()
    return stat.output_energy(pruned_OI - weight_OI).item() / energy if energy > 0 else 0.0


@contextmanager
def _named(index: int, name: str) -> Iterator[None]:
    """An error within says of which block and linear it is: bad values, or what torch cannot compute of them."""
    try:
        yield
    except ValueError as cause:
        raise ValueError(f"block {index}, {name}: {cause}") from cause
    except RuntimeError as cause:
        raise RuntimeError(f"block {index}, {name}: {cause}") from cause


def _prune(
    name: str, weight_OI: Tensor, recipe: Recipe, pattern: Pattern, stat: Observer | None
) -> tuple[Updated, SparseLowRank | None]:
    """What the recipe makes of one matrix, and the factors whose product that is, where it has chosen low rank."""
    if recipe.low_rank is not None and recipe.low_rank.chooses(name):
        factors = recipe.low_rank.decompose(weight_OI, stat, recipe.pruner, pattern)
        return Updated(weight_OI=factors.merged_OI(), damp=recipe.low_rank.damping), factors
    if recipe.pruner is None:
        return Updated(weight_OI=weight_OI), None
    pruned_OI, keep_OI = recipe.pruner.prune_and_keep(weight_OI, stat, pattern)
    made = Updated(weight_OI=pruned_OI)
    if recipe.update is not None:
        made = recipe.update.update(weight_OI, keep_OI, stat)
        recipe.pruner.check_pruned(made.weight_OI, weight_OI, pattern)
    return (made if made.damp is not None else replace(made, damp=recipe.pruner.damping)), None


def _error(weight_OI: Tensor, made_OI: Tensor | None, stat: Observer | None) -> float | None:
    """None where nothing was observed, or nothing made."""
    return None if stat is None or made_OI is None else output_error(weight_OI, made_OI, stat)


def _write(linear: nn.Linear, weight_OI: Tensor, order_I: Tensor | None) -> None:
    """In place; `order_I` is the order in which the columns come."""
    if order_I is None:
        linear.weight.data.copy_(weight_OI)
    else:
        linear.weight.data[:, order_I] = weight_OI
