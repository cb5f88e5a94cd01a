"""Pruning the linears of a whole model, block by block, each calibrated on what the already pruned part produces."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.calibrate.spill import Spill
from tasks.calibrate.walk import Walk, check_walk, placed
from tasks.handles import BlockRow, LinearRow
from tasks.model.anatomy import Anatomy, dissect
from tasks.model.mapped import release
from tasks.model.mode import evaluating
from tasks.model.modules import check_modules, those_of
from tasks.prune.allocation import Allocation
from tasks.prune.journal import Journal
from tasks.prune.weight.block import Cut, observe_then_prune, prune_on_the_way, prune_unobserved
from tasks.prune.weight.budget import attention_linears, patterns_for
from tasks.prune.weight.fold import Folding, find_folding, fold
from tasks.prune.weight.linear import PrunedLinear
from tasks.prune.weight.pattern import Pattern
from tasks.prune.weight.pruner import Pruner
from tasks.prune.weight.recipe import Recipe
from tasks.prune.weight.tuner import Tuning

HELD = 16  # batches whose forwards are held at once, under order "group"
PROBED_TOKENS = 8  # with which a block is asked where an order of inputs folds


def prune_model(
    model: PreTrainedModel,
    pruner: Pruner | None,
    pattern: Pattern,
    batches: Sequence[Tensor] | None,
    allocation: Allocation | None = None,
    *,
    device: torch.device | str | None = None,
    on_block: Callable[[BlockRow, list[LinearRow]], None] | None = None,
    **recipe: Any,
) -> list[LinearRow]:
    """`prune_blocks` to the end: one row per linear. `recipe` are the other fields of a `Recipe`.

    Orders and factors are not returned: the weights stand in the model where they belong, the factors multiplied out.
    `on_block` is called after every block.
    """
    rows: list[LinearRow] = []
    made = Recipe(pruner=pruner, pattern=pattern, **recipe)
    for block, linears in prune_blocks(model, made, batches, allocation, device=device):
        own = [linear.row for linear in linears]
        rows += own
        if on_block is not None:
            on_block(block, own)
    return rows


def prune_blocks(
    model: PreTrainedModel,
    recipe: Recipe,
    batches: Sequence[Tensor] | None,
    allocation: Allocation | None = None,
    *,
    device: torch.device | str | None = None,
    journal: Journal | None = None,
    spill: Spill | None = None,
) -> Iterator[tuple[BlockRow, list[PrunedLinear]]]:
    """Prune the linears inside the decoder blocks of `model` that `recipe` means, all of them as a rule, in place.

    Yields what came of a block once it is pruned.

    `batches`: ids, (windows, tokens) each; None will do for a recipe that runs no forward. `allocation`: the sparsity
    of each block; None for that of the pattern everywhere. `device`: where a block is while it is observed and pruned;
    None for where the model is. Embeddings and head stay as they are, and so do norms and biases unless blocks are
    reconstructed; the model keeps its dtype, device and mode. `spill`: where hidden states wait; None for `Spill()`.

    With a `journal`, of a model opened by tasks.model.mapped, a pruned block is written there and leaves memory; those
    that are there already come first, by their rows alone: orders and factors are in the journal.

    Raises ValueError before any weight is changed: no batches, weights with NaN, inputs that the pattern does not
    divide, an allocation that does not fit the pattern or the blocks, low rank that does not fit a linear, a model
    whose blocks cannot be walked.
    """
    _check_weights(model)
    windows = _check_batches(batches, recipe) if recipe.walks else []
    if recipe.order == "group":
        windows = _regrouped(windows)
    with evaluating(model):
        anatomy = dissect(model)
        every = [anatomy.linears(index) for index in range(len(anatomy.blocks))]
        check_modules(recipe.modules, (name for linears in every for name in linears))
        blocks = [those_of(linears, recipe.modules) for linears in every]
        _check_widths(anatomy, blocks, recipe.pattern)
        uniform = Allocation(sparsities=(recipe.pattern.sparsity,) * len(blocks))
        attention = [attention_linears(block) for block in anatomy.blocks]
        patterns = patterns_for(allocation or uniform, recipe.pattern, blocks, attention)
        if recipe.low_rank is not None:
            recipe.low_rank.check_blocks(blocks, patterns)
        if recipe.walks:
            check_walk(model, anatomy, windows[0])
        probe = Walk(model, anatomy, [windows[0][:1, :PROBED_TOKENS]], device) if recipe.permute else None
    cuts = [
        Cut(anatomy=anatomy, index=index, recipe=recipe, patterns=of_block) for index, of_block in enumerate(patterns)
    ]
    return _prune_blocks(model, cuts, windows, probe, torch.device(device or model.device), journal, spill)


@torch.no_grad()
def _prune_blocks(
    model: PreTrainedModel,
    cuts: list[Cut],
    batches: list[Tensor],
    probe: Walk | None,
    device: torch.device,
    journal: Journal | None,
    spill: Spill | None,
) -> Iterator[tuple[BlockRow, list[PrunedLinear]]]:
    anatomy, recipe = cuts[0].anatomy, cuts[0].recipe
    with evaluating(model):
        walk = Walk(model, anatomy, batches, device, spill) if recipe.walks else None
        dense = walk.twin() if walk is not None and recipe.follows_dense else None
        finished = journal.resume(anatomy, walk, dense) if journal is not None else []
        yield from finished
        for cut in cuts[len(finished) :]:
            started = time.perf_counter()
            with placed(anatomy.blocks[cut.index], device):
                if probe is not None:
                    cut = replace(cut, foldings=_foldings(cut, probe))
                pruned, error, tuning = _prune_block(cut, walk, dense)
            zeros = sum(each.row.zeros for each in pruned)
            size = sum(each.row.out_features * each.row.in_features for each in pruned)
            row = BlockRow(
                block=cut.index,
                sparsity=zeros / size if size else 0.0,
                error=error,
                seconds=time.perf_counter() - started,
                **(asdict(tuning) if tuning is not None else {}),
            )
            if journal is not None:
                journal.add(anatomy, row, pruned, walk, dense)
            yield row, pruned


def _prune_block(
    cut: Cut, walk: Walk | None, dense: Walk | None
) -> tuple[list[PrunedLinear], float | None, Tuning | None]:
    """The linears, the relative error of the block's output on the first batch where it is known, and the tuning.

    Both walks move on to the next block, except that nobody needs the outputs of the last.
    """
    tuner = cut.recipe.reconstruct if cut.groups else None  # a block that was cut may have no linear
    last = cut.index + 1 == len(cut.anatomy.blocks)
    if walk is None:
        return prune_unobserved(cut), None, None
    dense_before = dense.twin() if dense is not None and tuner is not None else None
    if cut.recipe.order == "group":
        pruned, unpruned_BTD = prune_on_the_way(cut, walk, dense, finish=tuner is None and not last), None
    else:
        pruned, unpruned_BTD = observe_then_prune(cut, walk, dense)
    pruned = [_folded(cut, linear) for linear in pruned]
    tuning = error = None
    if tuner is not None and dense_before is not None and dense is not None:
        tuning = tuner.tune(cut.index, walk, dense_before, dense)
    if unpruned_BTD is not None or tuning is not None:
        steps = walk.step(cut.index)
        pruned_BTD = next(steps)
        error = None if unpruned_BTD is None else _relative_error(pruned_BTD, unpruned_BTD)
        for _ in steps if not last else ():
            pass
    return pruned, error, tuning


def _foldings(cut: Cut, probe: Walk) -> dict[str, Folding | None]:
    """For each group, by its first linear, where an order of its inputs folds; None where it has to be stored."""
    block, groups = cut.anatomy.blocks[cut.index], cut.anatomy.shared_inputs[cut.index]
    foldings: dict[str, Folding | None] = {}
    for first in cut.firsts:
        found = find_folding(block, groups, first, probe.call(cut.index, 0), probe.hidden[0].shape)
        foldings[first] = found if found is not None and cut.patterns[first].divides(found.width) else None
    return foldings


def _folded(cut: Cut, pruned: PrunedLinear) -> PrunedLinear:
    """With its order moved into the linears before it, where it folds: nothing has to be stored then."""
    folding = cut.foldings.get(pruned.row.linear)
    if folding is None or pruned.order_I is None:
        return pruned
    fold(cut.anatomy.blocks[cut.index], pruned.row.linear, pruned.order_I, folding)
    return replace(pruned, row=replace(pruned.row, order="folded"), order_I=None)


def _check_weights(model: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not torch.stack(parameter.aminmax()).isfinite().all():
            raise ValueError(f"model: NaN or infinity in {name}")
        release([parameter])


def _check_widths(anatomy: Anatomy, blocks: Sequence[Mapping[str, nn.Linear]], pattern: Pattern) -> None:
    for index, linears in enumerate(blocks):
        for name, linear in linears.items():
            if not pattern.divides(linear.in_features):
                where = anatomy.qualified(index, name)
                raise ValueError(f"pattern: {pattern} does not divide the {linear.in_features} inputs of {where}")


def _check_batches(batches: Sequence[Tensor] | None, recipe: Recipe) -> list[Tensor]:
    windows = list(batches) if batches is not None else []
    if not windows:
        need = "needs" if len(recipe.walkers) == 1 else "need"
        raise ValueError(f"batches: none given; {', '.join(recipe.walkers)} {need} calibration windows")
    for ids_BT in windows:
        if ids_BT.dim() != 2 or ids_BT.numel() == 0 or ids_BT.is_floating_point():
            given = f"{ids_BT.dtype} of shape {tuple(ids_BT.shape)}"
            raise ValueError(f"batches: {given} given, token ids of shape (windows, tokens) are needed")
    return windows


def _regrouped(windows: list[Tensor]) -> list[Tensor]:
    """Fewer and larger batches, if there are more than `HELD`: each is held in a thread of its own."""
    if len(windows) <= HELD:
        return windows
    lengths = sorted({ids_BT.shape[1] for ids_BT in windows})
    if len(lengths) > 1:
        raise ValueError(f"batches: order 'group' needs windows of one length, or {HELD} batches; {lengths} given")
    return list(torch.cat(windows).chunk(HELD))


def _relative_error(pruned_BTD: Tensor, dense_BTD: Tensor) -> float:
    """||pruned − dense||² / ||dense||²."""
    pruned_BTD, dense_BTD = pruned_BTD.double(), dense_BTD.double()
    return ((pruned_BTD - dense_BTD).square().sum() / dense_BTD.square().sum()).item()
