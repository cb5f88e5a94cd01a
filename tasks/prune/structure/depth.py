"""Removing whole blocks, or only the attention or only the FFN of a block, and numbering the cache anew.

A cache has one slot for each block of the configuration, of the kind that its `layer_types` say; a model counts the
tokens it has seen in slot 0, and measures the causal mask of a kind of attention in the first slot of that kind. So
blocks with attention take the first slots of their kind, those without take none, and what is left over stays empty.
"""

import inspect
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from tasks.model.anatomy import attention_of, find_blocks
from tasks.model.units import Units, units_of
from tasks.prune.structure.slice import Slice


class NoAttention(nn.Module):
    """In the place of a block's attention: adds nothing, owns no slot of a cache."""

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, None]:
        return torch.zeros_like(hidden_states), None


class NoFFN(nn.Module):
    """In the place of a block's FFN, or of its last linear: adds nothing."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return torch.zeros_like(hidden_states)


def slice_blocks(
    model: PreTrainedModel,
    *,
    blocks: Sequence[int] = (),
    attention: Sequence[int] = (),
    ffn: Sequence[int] = (),
) -> Slice:
    """Remove `blocks` whole, and of others the `attention` or the `ffn`, from `model`, in place; the slice can undo it.

    Indices are those before the cut, ascending. The configuration counts the blocks that are left; the norms around a
    removed attention or FFN stay. Where nothing is named nothing is replaced.

    Raises ValueError, before anything is replaced, for a block that is not there or named twice, one without the
    attention or the channels that shall go, a part that adds the hidden states to its outputs itself, and a model that
    would be left without attention: its cache counts tokens.
    """
    name, present = find_blocks(model)
    for field, indices in {"blocks": blocks, "attention": attention, "ffn": ffn}.items():
        _check(field, indices, len(present), taken=() if field == "blocks" else blocks)
    units = units_of(model) if ffn else []
    channels = {index: units[index].of("channels") for index in ffn}
    attentions = {index: attention_of(present[index]) for index in range(len(present)) if index not in blocks}
    for index in attention:
        if not attentions[index]:
            raise ValueError(f"attention: {index} given, that block has none")
        _check_adds_alone("attention", index, present[index].get_submodule(attentions[index]))
    for index, of_block in channels.items():
        _check_adds_alone("ffn", index, present[index].get_submodule(of_block.module))
    attentive = [index for index, found in attentions.items() if found and index not in attention]
    if not attentive:
        raise ValueError("attention: none would be left; valid is to leave it in one block at least")
    made = Slice()
    for index in attention:
        _put(made, present[index], attentions[index], NoAttention())
    for index, of_block in channels.items():
        _remove_ffn(made, present[index], of_block)
    if blocks:
        owner, _, leaf = name.rpartition(".")
        made.replace(model.get_submodule(owner), leaf, nn.ModuleList([present[index] for index in attentions]))
    if blocks or attention:
        _renumber(made, model.config.get_text_config(), present, list(attentions), attentive)
    return made


def _renumber(
    made: Slice, config: PreTrainedConfig, present: nn.ModuleList, left: list[int], attentive: list[int]
) -> None:
    """Count the blocks that are left, and give those with attention the first slots of their kind.

    A block without attention may have any kind, as nobody asks for it: it gets that of the first with attention, so
    that this one takes slot 0.
    """
    kinds = getattr(config, "layer_types", None)
    left_kinds = [kinds[index if index in attentive else attentive[0]] for index in left] if kinds else [""] * len(left)
    if kinds:
        made.replace(config, "layer_types", left_kinds)
    made.replace(config, "num_hidden_layers", len(left))
    free = {kind: [slot for slot, of_slot in enumerate(left_kinds) if of_slot == kind] for kind in left_kinds}
    for index, kind in zip(left, left_kinds, strict=True):
        if index in attentive:
            slot = free[kind].pop(0)
            for module in present[index].modules():
                if hasattr(module, "layer_idx"):
                    made.replace(module, "layer_idx", slot)


def _remove_ffn(made: Slice, block: nn.Module, channels: Units) -> None:
    if channels.module:
        _put(made, block, channels.module, NoFFN())
        return
    for maker in channels.rows_each:  # the linears belong to the block itself, as in OPT
        _put(made, block, maker, nn.Identity())
    _put(made, block, channels.reader, NoFFN())


def _put(made: Slice, block: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    old = block.get_submodule(name)
    made.replace(block.get_submodule(parent), leaf, module.train(old.training))


def _check(field: str, indices: Sequence[int], count: int, taken: Sequence[int]) -> None:
    ascending = all(low < high for low, high in pairwise(indices))
    if not ascending or any(index not in range(count) for index in indices):
        raise ValueError(f"{field}: {list(indices)} given, valid are ascending, different indices 0 to {count - 1}")
    if both := sorted(set(indices) & set(taken)):
        raise ValueError(f"{field}: {both} given, which blocks removes whole")


def _check_adds_alone(field: str, index: int, part: nn.Module) -> None:
    """Bloom's parts and MPT's FFN are given the hidden states to add to; in their place nothing would hand these on."""
    if "residual" in inspect.signature(part.forward).parameters:
        name = type(part).__name__
        raise ValueError(f"{field}: {index} given, but {name} itself adds the hidden states; valid are whole blocks")
