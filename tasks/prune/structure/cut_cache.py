"""A cache that the uncut model has filled, made to fit a profile of it, so that the profile can go on from there.

Axes: G head groups that stay; keys and values are (prompts, KV heads, positions, width of a head).
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel

from tasks.model.anatomy import attention_of, find_blocks
from tasks.prune.structure.profiles import NONE, Profiles


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fit:
    """`empty`: a cache of a profile; `shares`: of its slots, each with the whole cache's and with the groups kept."""

    empty: Cache
    shares: Mapping[int, tuple[int, Tensor | None]]


_FITS: WeakKeyDictionary[Profiles, dict[str, _Fit]] = WeakKeyDictionary()  # a profile never changes, so seen once


def cut_cache(profiles: Profiles, name: str, cache: Cache) -> Cache:
    """A new cache with the rows of the KV heads and of the blocks that profile `name` has, in the slots it uses.

    Where a block keeps all its heads the tensors are those of `cache`: to go on replaces them and writes into none.
    Raises ValueError for a profile that is not there.
    """
    if name == NONE:
        made = copy(cache)
        made.layers = [copy(layer) for layer in cache.layers]
        return made
    known = _FITS.setdefault(profiles, {})
    if name not in known:
        known[name] = _fit_of(profiles, name)
    made = copy(known[name].empty)
    made.layers = [copy(layer) for layer in made.layers]
    for slot, (whole, groups_G) in known[name].shares.items():
        made.layers[slot] = _of_groups(cache.layers[whole], groups_G)
    return made


def _fit_of(profiles: Profiles, name: str) -> _Fit:
    kept = profiles.cut(name).kept
    with profiles.using(NONE) as model:
        blocks, whole = list(find_blocks(model)[1]), slots_of(model)
    with profiles.using(name) as model:
        left, empty = slots_of(model), DynamicCache(config=model.config)
    shares = {
        left[block]: (whole[block], kept.get(index, {}).get("head_groups"))
        for index, block in enumerate(blocks)
        if block in left
    }
    return _Fit(empty=empty, shares=shares)


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
