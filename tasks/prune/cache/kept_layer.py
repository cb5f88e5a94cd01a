"""A cache that holds a part of the tokens it has seen, in the words of transformers: a layer is one block's share.

Axes: B prompts, H KV heads, Q query heads, T positions, K of them that stay, D width of a head.
"""

from collections.abc import Mapping
from copy import copy
from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from tasks.prune.cache.budget import KVBudget


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
        assert self.keys is not None  # as it is before the first token
        assert self.values is not None
        position_BHK = budget.keep(self.keys, self.values, query_BQTD)
        gone = self.keys.shape[2] - position_BHK.shape[2]
        if gone:
            self.keys, self.values = _gathered(self.keys, position_BHK), _gathered(self.values, position_BHK)
            self.dropped += gone

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


def within_budget(cache: Cache, budget: KVBudget, queries: Mapping[int, Tensor] | None = None) -> Cache:
    """A new cache with what the budget keeps of each block's share.

    `queries`: of each slot, (B, Q, T, D), as `KVBudget.keep` wants them. Raises ValueError as `check_forgettable`, and
    for queries that the budget needs and that are not there.
    """
    check_forgettable(cache)
    made = copy(cache)
    made.layers = [copy(layer) for layer in cache.layers]
    for slot, layer in enumerate(cache.layers):
        if isinstance(layer, DynamicLayer) and layer.is_initialized:
            made.layers[slot] = _fitted(layer, budget, queries.get(slot) if queries else None)
    return made


def check_forgettable(cache: Cache) -> None:
    """Raises ValueError for a cache that is not whole: a block with a sliding window forgets by itself already."""
    other = {type(layer).__name__ for layer in cache.layers if type(layer) is not DynamicLayer}
    if other:
        raise ValueError(f"budget: the model's cache has a {min(other)}, valid are blocks that attend to every token")


def _fitted(layer: Any, budget: KVBudget, query_BQTD: Tensor | None) -> KeptLayer:
    kept = KeptLayer()
    kept.lazy_initialization(layer.keys, layer.values)
    kept.keys, kept.values = layer.keys, layer.values
    kept.fit(budget, query_BQTD)
    return kept


def _gathered(held_BHTD: Tensor, position_BHK: Tensor) -> Tensor:
    return held_BHTD.gather(2, position_BHK[..., None].expand(-1, -1, -1, held_BHTD.shape[3]))
