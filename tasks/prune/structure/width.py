"""Cutting units out of blocks: every linear that loses rows or columns is replaced by a smaller nn.Linear.

Axes: U units that stay, O outputs, I inputs of a linear.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.model.anatomy import find_blocks, linears_of
from tasks.model.units import BlockUnits, Units, units_of
from tasks.prune.structure.slice import Slice

Kept = Mapping[int, Mapping[str, Tensor]]  # block -> kind of unit -> the units that stay; all of what is not named


@torch.no_grad()
def slice_units(model: PreTrainedModel, kept: Kept, units: Sequence[BlockUnits] | None = None) -> Slice:
    """Remove the units that are not in `kept` from `model`, in place; the returned slice can undo it.

    The new linears are smaller and have parameters of their own, of the same dtype and device; the counts of heads that
    the attention of a block works with follow. The configuration says nothing about single blocks and stays. Where all
    units of a kind stay nothing is replaced. `units`: those of `model`, if they are known.

    Raises ValueError, before anything is replaced, for a block or a kind that is not there, indices that are not int64,
    ascending and different, or none, groups that would keep unequal numbers of query heads, and head groups together
    with query heads: cut one, then the other.
    """
    chosen = _chosen(model, kept, units)
    made = Slice()
    for block, of_kind, kept_U in chosen:
        _cut(made, block, of_kind, kept_U)
    return made


@contextmanager
def masked(model: PreTrainedModel, kept: Kept, units: Sequence[BlockUnits] | None = None) -> Iterator[None]:
    """Within, what the other units hand to their reader is zero: the model computes what it would without them.

    No weight is touched. Arguments and errors as of `slice_units`.
    """
    with ExitStack() as hooks:
        for block, of_kind, kept_U in _chosen(model, kept, units):
            reader = linears_of(block)[of_kind.reader]
            hook = reader.register_forward_pre_hook(_zeroing(of_kind, kept_U.to(reader.weight.device)))
            hooks.callback(hook.remove)
        yield


def rounded(channels: int, *, full: int, round_to: int = 64) -> int:
    """The multiple of `round_to` nearest to `channels`, the larger of two; at least one step, at most `full`.

    `full`, the width before the cut, is valid whether it is a multiple or not. Raises ValueError for a width or a step
    that is not within 1 to `full`.
    """
    if not 1 <= round_to <= full:
        raise ValueError(f"round_to: {round_to} given, valid is 1 to the {full} channels of the block")
    if not 1 <= channels <= full:
        raise ValueError(f"channels: {channels} given, valid is 1 to {full}")
    if channels == full:
        return full
    return min(max((2 * channels + round_to) // (2 * round_to), 1) * round_to, full)


def _chosen(
    model: PreTrainedModel, kept: Kept, units: Sequence[BlockUnits] | None
) -> list[tuple[nn.Module, Units, Tensor]]:
    """What is to be cut, checked: the block, its units of a kind and those that stay."""
    every = units_of(model) if units is None else units
    _, blocks = find_blocks(model)
    chosen = []
    for block, kinds in kept.items():
        if block not in range(len(blocks)):
            raise ValueError(f"kept: block {block} given, valid is 0 to {len(blocks) - 1}")
        if {"head_groups", "query_heads"} <= kinds.keys():
            raise ValueError(f"kept: head_groups and query_heads given for block {block}; cut one, then the other")
        for kind, kept_U in kinds.items():
            of_kind = every[block].of(kind)
            of_kind.check(kept_U)
            reader = linears_of(blocks[block]).get(of_kind.reader)
            if reader is None or reader.in_features != of_kind.count * of_kind.columns_each:
                raise ValueError(f"units: those given for block {block} are not the model's; it has been cut since")
            chosen.append((blocks[block], of_kind, kept_U))
    return chosen


def _cut(made: Slice, block: nn.Module, units: Units, kept_U: Tensor) -> None:
    if len(kept_U) == units.count:
        return
    linears = linears_of(block)
    for name, rows_O in units.rows_of(kept_U).items():
        bias_O = None if linears[name].bias is None else linears[name].bias[rows_O]
        _replace(made, block, name, linears[name].weight[rows_O], bias_O)
    reader = linears[units.reader]
    bias_O = None if reader.bias is None else reader.bias.clone()
    _replace(made, block, units.reader, reader.weight[:, units.columns_of(kept_U)], bias_O)
    module = block.get_submodule(units.module)
    for attribute, number in _numbers(units, len(kept_U)).items():
        if hasattr(module, attribute):
            made.replace(module, attribute, number)


def _replace(made: Slice, block: nn.Module, name: str, weight_OI: Tensor, bias_O: Tensor | None) -> None:
    """Put a linear of these weights in the place of `name`; what was frozen or in training mode stays so."""
    old = linears_of(block)[name]
    out_features, in_features = weight_OI.shape
    new = nn.Linear(in_features, out_features, bias=bias_O is not None, device="meta").train(old.training)
    new.weight = nn.Parameter(weight_OI, requires_grad=old.weight.requires_grad)
    if bias_O is not None:
        new.bias = nn.Parameter(bias_O, requires_grad=old.bias.requires_grad)
    parent, _, leaf = name.rpartition(".")
    made.replace(block.get_submodule(parent), leaf, new)


def _numbers(units: Units, kept: int) -> dict[str, int]:
    """What modules of transformers call the numbers that a cut changes; none has all of these."""
    if units.kind == "channels":
        return {"intermediate_size": kept}
    head_dim = min(units.rows_each.values())
    queries = kept * units.columns_each // head_dim
    groups = kept if units.kind == "head_groups" else units.parts
    return {
        "num_heads": queries,
        "num_attention_heads": queries,
        "num_key_value_heads": groups,
        "num_key_value_groups": queries // groups,
        "embed_dim": queries * head_dim,
    }


def _zeroing(units: Units, kept_U: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], Tensor]:
    """A hook that zeroes the inputs of the reader that belong to other units."""
    gone_U = units.removed(kept_U)
    gone_I = (units.columns_of(gone_U) if len(gone_U) else gone_U).to(kept_U.device)
    return lambda _, inputs: inputs[0].index_fill(-1, gone_I, 0)
