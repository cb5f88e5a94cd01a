"""The products of a model's blocks, linears and attention, apart from the model: what a forecast of speed is made of.

Axes: B sequences (1), H query heads, K KV heads, T tokens, D width of a head; O outputs, I inputs of a linear.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import PreTrainedModel

from tasks.model.anatomy import find_blocks, linears_of
from tasks.model.units import Units, units_of


@dataclass(frozen=True, kw_only=True)
class Work:
    """The products of one block: the shapes (O, I) of its linears, and the heads of its attention.

    No heads where the attention was removed, and where its linears do not tell them, as fused ones do not.
    """

    linears: tuple[tuple[int, int], ...]
    query_heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0


def heads_in(model: PreTrainedModel) -> Units | None:
    """The head groups of any block of `model`, as `works_of` needs them; one forward of a few tokens."""
    return next((block.head_groups for block in units_of(model) if block.head_groups), None)


def works_of(model: PreTrainedModel, heads: Units | None) -> list[Work]:
    """What each block of `model` multiplies, by the shapes of its linears: they may be on the device "meta".

    `heads`: the head groups of any block of it, which name the linears that make them; None for a family without.
    """
    return [_work(block, heads) for block in find_blocks(model)[1]]


class Products:
    """Weights, inputs and caches for `works`, made once, so that a pass over all blocks can be timed again and again.

    Each block has weights of its own, as in a model: so they come from a cache no more often than a model's do.
    """

    def __init__(self, works: Sequence[Work], tokens: int, like: Tensor, lent: Iterable[Tensor] = ()) -> None:
        """`tokens`: of a prefill, and of the context in which a token is decoded. `like`: a tensor of the dtype and on
        the device. `lent`: weights that serve, each once, where they have the shape; others are drawn."""
        shelf: dict[tuple[int, ...], list[Tensor]] = {}
        for weight_OI in lent:
            shelf.setdefault(tuple(weight_OI.shape), []).append(weight_OI)
        self.works, self.tokens, self.like = works, tokens, like
        self.weights = [
            [shelf[shape].pop(0) if shelf.get(shape) else _random(like, *shape) for shape in work.linears]
            for work in works
        ]
        self.caches = [_random(like, 2, 1, work.kv_heads, tokens, work.head_dim) for work in works]
        self.inputs = {inputs: _random(like, 1, tokens, inputs) for work in works for _, inputs in work.linears}

    @torch.no_grad()
    def prefill(self) -> None:
        """One pass with all tokens, each attending to itself and those before it."""
        for work, weights, cache in zip(self.works, self.weights, self.caches, strict=True):
            for weight_OI in weights:
                linear(self.inputs[weight_OI.shape[1]], weight_OI)
            if work.kv_heads:
                self._attend(work, self.tokens, *cache)

    @torch.no_grad()
    def decode(self) -> None:
        """One pass with one token, which attends to itself and the caches; these grow by it, as those of models do."""
        for work, weights, cache in zip(self.works, self.weights, self.caches, strict=True):
            for weight_OI in weights:
                linear(self.inputs[weight_OI.shape[1]][:, :1], weight_OI)
            if work.kv_heads:
                self._attend(work, 1, *(torch.cat([past, past[:, :, :1]], dim=2) for past in cache))

    def _attend(self, work: Work, queries: int, key_BKTD: Tensor, value_BKTD: Tensor) -> None:
        query_BHTD = self.like.new_ones(1, work.query_heads, queries, work.head_dim)
        grouped = work.query_heads > work.kv_heads
        scaled_dot_product_attention(query_BHTD, key_BKTD, value_BKTD, is_causal=queries > 1, enable_gqa=grouped)


def _work(block: nn.Module, heads: Units | None) -> Work:
    linears = linears_of(block)
    shapes = tuple((each.out_features, each.in_features) for each in linears.values())
    if heads is None or heads.reader not in linears:
        return Work(linears=shapes)
    head_dim = min(heads.rows_each.values())
    return Work(
        linears=shapes,
        query_heads=linears[heads.reader].in_features // head_dim,
        kv_heads=min(linears[name].out_features for name in heads.rows_each) // head_dim,
        head_dim=head_dim,
    )


def _random(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape).uniform_(-1, 1)
