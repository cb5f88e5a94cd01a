"""Pruning the linears of a whole model, block by block, each calibrated on what the already pruned part produces."""

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.calibrate.walk import Walk, check_walk, placed
from tasks.handles import BlockRow, LinearRow
from tasks.model.anatomy import Anatomy, dissect
from tasks.model.mode import evaluating
from tasks.prune.weight.block import observe_then_prune, prune_on_the_way, prune_unobserved
from tasks.prune.weight.pattern import Pattern
from tasks.prune.weight.pruner import Pruner

ORDERS = ("block", "group")
HELD = 16  # batches whose forwards are held at once, under order "group"
Rows = tuple[BlockRow, list[LinearRow]]


def prune_model(
    model: PreTrainedModel,
    pruner: Pruner,
    pattern: Pattern,
    batches: Sequence[Tensor] | None,
    allocation: None = None,
    *,
    order: str = "block",
    device: torch.device | str | None = None,
    on_block: Callable[[BlockRow, list[LinearRow]], None] | None = None,
) -> list[LinearRow]:
    """`prune_blocks` to the end: one row per linear. `on_block` is called after every block.

    `allocation` must be None: every block gets the sparsity of `pattern`.
    """
    if allocation is not None:
        raise ValueError(f"allocation: {allocation!r} given; only None (the pattern's sparsity everywhere) is known")
    rows: list[LinearRow] = []
    for block, linears in prune_blocks(model, pruner, pattern, batches, order=order, device=device):
        rows += linears
        if on_block is not None:
            on_block(block, linears)
    return rows


def prune_blocks(
    model: PreTrainedModel,
    pruner: Pruner,
    pattern: Pattern,
    batches: Sequence[Tensor] | None,
    *,
    order: str = "block",
    device: torch.device | str | None = None,
) -> Iterator[Rows]:
    """Prune every linear inside the decoder blocks of `model` in place; yields the rows of a block once it is pruned.

    `batches`: ids, (windows, tokens) each; None will do for a pruner that observes nothing. `device`: where a block is
    while it is observed and pruned; None for where the model is. `order`: see `tasks.prune.weight.block`. Embeddings,
    head, norms and biases stay as they are, as do the model's dtype, device and mode.

    Raises ValueError before any weight is changed: an unknown `order`, no batches, weights with NaN, inputs that the
    pattern does not divide, a model whose blocks cannot be walked.
    """
    if order not in ORDERS:
        raise ValueError(f"order: {order!r} given, valid is {' or '.join(ORDERS)}")
    if order != "block" and pruner.observes is None:
        raise ValueError(f"order: {order!r} given, but {type(pruner).__name__} runs no forward; leave it at 'block'")
    _check_weights(model)
    windows = [] if pruner.observes is None else _check_batches(batches)
    if order == "group":
        windows = _regrouped(windows)
    with evaluating(model):
        anatomy = dissect(model)
        _check_widths(anatomy, pattern)
        if pruner.observes is not None:
            check_walk(model, anatomy, windows[0])
    return _prune_blocks(model, anatomy, pruner, pattern, windows, order, torch.device(device or model.device))


@torch.no_grad()
def _prune_blocks(
    model: PreTrainedModel,
    anatomy: Anatomy,
    pruner: Pruner,
    pattern: Pattern,
    batches: list[Tensor],
    order: str,
    device: torch.device,
) -> Iterator[Rows]:
    with evaluating(model):
        walk = Walk(model, anatomy, batches, device) if pruner.observes is not None else None
        for index, block in enumerate(anatomy.blocks):
            started = time.perf_counter()
            error = None
            with placed(block, device):
                if walk is None:
                    rows = prune_unobserved(anatomy, index, pruner, pattern)
                elif order == "block":
                    rows, error = observe_then_prune(walk, anatomy, index, pruner, pattern)
                else:
                    rows = prune_on_the_way(walk, anatomy, index, pruner, pattern)
            zeros, size = sum(row.zeros for row in rows), sum(row.out_features * row.in_features for row in rows)
            yield BlockRow(block=index, sparsity=zeros / size, error=error, seconds=time.perf_counter() - started), rows


def _check_weights(model: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not torch.stack(parameter.aminmax()).isfinite().all():
            raise ValueError(f"model: NaN or infinity in {name}")


def _check_widths(anatomy: Anatomy, pattern: Pattern) -> None:
    for index in range(len(anatomy.blocks)):
        for name, linear in anatomy.linears(index).items():
            if not pattern.divides(linear.in_features):
                where = anatomy.qualified(index, name)
                raise ValueError(f"pattern: {pattern} does not divide the {linear.in_features} inputs of {where}")


def _check_batches(batches: Sequence[Tensor] | None) -> list[Tensor]:
    windows = list(batches) if batches is not None else []
    if not windows:
        raise ValueError("batches: none given; the pruner needs calibration windows")
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
