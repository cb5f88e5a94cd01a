"""A cache that holds a part of the tokens it has seen, in the words of transformers: a layer is one block's share.

Axes: B prompts, H KV heads, Q query heads, T positions, K of them that stay, D width of a head.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from tasks.prune.cache.budget import KVBudget

TOGETHER = 1 << 20  # numbers of the keys that are fitted in one go: of more the steps are not what takes the time


class KeptLayer(DynamicLayer):
    """Keys and values of a part of the tokens that a block has seen; what comes later is appended, and all kept.

    Its length is that of all tokens seen, so that positions stay true. A causal mask is laid over those it holds as if
    the `dropped` ones had come first: all that is held is in the past, and what comes stands where it is.
    """

    is_croppable = False

    def __init__(self) -> None:
        super().__init__()
        self.dropped = 0

    def fit(self, budget: KVBudget, query_BQTD: Tensor | None) -> None:
        """Hold what the budget keeps of what is held; where that is all, the tensors stay the same."""
        fit([self], budget, [query_BQTD])

    def get_seq_length(self) -> int:
        return super().get_seq_length() + self.dropped

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many positions there will be, and the number of the first."""
        return super().get_seq_length() + query_length, self.dropped

    def crop(self, tokens_to_remove: int) -> None:
        """ValueError: what was dropped cannot come back."""
        raise ValueError(f"cache: crop by {tokens_to_remove} given, valid is a cache without a KV budget")

    def reset(self) -> None:
        self.keys = self.values = None
        self.is_initialized, self.dropped = False, 0


def fit(layers: Sequence[KeptLayer], budget: KVBudget, queries: Sequence[Tensor | None]) -> None:
    """`KeptLayer.fit` of several that hold keys, values and queries of the same shapes: as one batch, in few steps.

    Of a short prompt it is the number of steps that takes the time. Errors as `KVBudget.keep`.
    """
    tokens = layers[0].get_seq_length() - layers[0].dropped
    if budget.count(tokens) == tokens:
        return
    given = [query_BQTD for query_BQTD in queries if query_BQTD is not None]
    keys_BHTD, values_BHTD = (_stacked([getattr(layer, name) for layer in layers]) for name in ("keys", "values"))
    query_BQTD = _stacked(given) if len(given) == len(layers) else None
    position_BHK = budget.keep(keys_BHTD, values_BHTD, query_BQTD)
    of_each = (_gathered(held_BHTD, position_BHK).chunk(len(layers)) for held_BHTD in (keys_BHTD, values_BHTD))
    for layer, keys, values in zip(layers, *of_each, strict=True):
        layer.keys, layer.values = keys, values
        layer.dropped += tokens - position_BHK.shape[2]


def within_budget(cache: Cache, budget: KVBudget, queries: Mapping[int, Tensor] | None = None) -> Cache:
    """A new cache with what the budget keeps of each block's share.

    `queries`: of each slot, (B, Q, T, D), as `KVBudget.keep` wants them. Raises ValueError as `check_forgettable`, and
    for queries that the budget needs and that are not there.
    """
    check_forgettable(cache)
    made = copy(cache)
    made.layers = [copy(layer) for layer in cache.layers]
    for slots in _alike(cache.layers, queries or {}):
        kept = [_whole(cache.layers[slot]) for slot in slots]
        fit(kept, budget, [queries.get(slot) if queries else None for slot in slots])
        for slot, layer in zip(slots, kept, strict=True):
            made.layers[slot] = layer
    return made


def check_forgettable(cache: Cache) -> None:
    """Raises ValueError for a cache that is not whole: a block with a sliding window forgets by itself already."""
    other = {type(layer).__name__ for layer in cache.layers if type(layer) is not DynamicLayer}
    if other:
        raise ValueError(f"budget: the model's cache has a {min(other)}, valid are blocks that attend to every token")


def _alike(layers: Sequence[Any], queries: Mapping[int, Tensor]) -> Iterator[list[int]]:
    """The slots that hold something, those together that `fit` can take at once; of large ones each for itself."""

    def kind(slot: int) -> tuple[Any, ...]:
        held = (layers[slot].keys, layers[slot].values, queries.get(slot))
        return tuple(None if each is None else (each.shape, each.dtype, each.device) for each in held)

    filled = [slot for slot, layer in enumerate(layers) if isinstance(layer, DynamicLayer) and layer.is_initialized]
    for _, group in groupby(filled, kind):
        same = list(group)
        at_once = max(1, TOGETHER // layers[same[0]].keys.numel())
        yield from (same[start : start + at_once] for start in range(0, len(same), at_once))


def _whole(layer: Any) -> KeptLayer:
    """The same share, of which a part can be dropped."""
    kept = KeptLayer()
    kept.lazy_initialization(layer.keys, layer.values)
    kept.keys, kept.values = layer.keys, layer.values
    return kept


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """As one batch; a single one is not copied."""
    return tensors[0] if len(tensors) == 1 else torch.cat([*tensors])


def _gathered(held_BHTD: Tensor, position_BHK: Tensor) -> Tensor:
    return held_BHTD.gather(2, position_BHK[..., None].expand(-1, -1, -1, held_BHTD.shape[3]))
