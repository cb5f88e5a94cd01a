"""A cache that the uncut model has filled, made to fit a profile of it, so that the profile can go on from there.

Axes: G head groups that stay; keys and values are (prompts, KV heads, positions, width of a head).
"""

from copy import copy
from typing import Any

from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel

from tasks.model.anatomy import find_blocks
from tasks.model.heads import attention_of
from tasks.prune.structure.profiles import NONE, Profiles


def cut_cache(profiles: Profiles, name: str, cache: Cache) -> Cache:
    """A new cache with the rows of the KV heads and of the blocks that profile `name` has, in the slots it uses.

    Where a block keeps all its heads the tensors are those of `cache`: to go on replaces them and writes into none.
    Raises ValueError for a profile that is not there.
    """
    if name == NONE:
        made = copy(cache)
        made.layers = [copy(layer) for layer in cache.layers]
        return made
    kept = profiles.cut(name).kept
    with profiles.using(NONE) as model:
        blocks, whole = list(find_blocks(model)[1]), slots_of(model)
    with profiles.using(name) as model:
        left = slots_of(model)
        made = DynamicCache(config=model.config)
    for index, block in enumerate(blocks):
        if block in left:
            groups_G = kept.get(index, {}).get("head_groups")
            made.layers[left[block]] = _of_groups(cache.layers[whole[block]], groups_G)
    return made


def slots_of(model: PreTrainedModel) -> dict[nn.Module, int]:
    """The blocks with attention in the order they run, each with the slot of a cache that it writes into."""
    slots = {}
    for block in find_blocks(model)[1]:
        if name := attention_of(block):
            attention: Any = block.get_submodule(name)
            slots[block] = attention.layer_idx
    return slots


def _of_groups(layer: Any, groups_G: Tensor | None) -> Any:
    """A block's share of a cache, of whatever kind."""
    part = copy(layer)
    if groups_G is not None:
        part.keys, part.values = (each[:, groups_G.to(each.device)] for each in (layer.keys, layer.values))
    return part
