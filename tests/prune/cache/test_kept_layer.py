"""Blocks that are fitted together, and each alone: the same positions stay."""

import pytest
import torch
from transformers import DynamicCache

from tasks.prune.cache import kept_layer
from tasks.prune.cache.kept_layer import KeptLayer, within_budget
from tasks.prune.cache.methods import parse_budget

TOKENS = 60


def cache_of(heads=(2, 2, 4, 2, 2)):
    """A cache of blocks with so many KV heads, and the queries of their last tokens, three to a KV head."""
    chance, cache, queries = torch.Generator().manual_seed(0), DynamicCache(), {}
    for slot, number in enumerate(heads):
        keys, values = torch.randn(2, 1, number, TOKENS, 8, generator=chance)
        cache.update(keys, values, slot)
        queries[slot] = torch.randn(1, 3 * number, 16, 8, generator=chance)
    return cache, queries


@pytest.mark.parametrize("together", [kept_layer.TOGETHER, 2 * 2 * TOKENS * 8, 1])
@pytest.mark.parametrize("budget", ["snapkv:0.5,window=8", "window:0.4", "key_norm:0.3"])
def test_blocks_keep_together_what_each_keeps_alone(budget, together, monkeypatch):
    monkeypatch.setattr(kept_layer, "TOGETHER", together)
    (cache, queries), budget = cache_of(), parse_budget(budget)
    before = [layer.keys.clone() for layer in cache.layers]
    made = within_budget(cache, budget, queries)
    for slot, (layer, whole) in enumerate(zip(made.layers, cache.layers, strict=True)):
        alone = KeptLayer()
        alone.update(whole.keys, whole.values)
        alone.fit(budget, queries[slot])
        assert torch.equal(layer.keys, alone.keys)
        assert torch.equal(layer.values, alone.values)
        assert (layer.keys.shape[2], layer.get_seq_length()) == (budget.count(TOKENS), TOKENS)
        assert torch.equal(whole.keys, before[slot])


def test_blocks_go_on_apart():
    cache, queries = cache_of((2, 2))
    made = within_budget(cache, parse_budget("snapkv:0.5,window=8"), queries)
    other = made.layers[1].keys.clone()
    made.layers[0].update(*torch.zeros(2, 1, 2, 1, 8))
    assert made.layers[0].keys.shape[2] == 31
    assert torch.equal(made.layers[1].keys, other)


def test_where_everything_stays_nothing_is_copied_and_no_query_is_asked_for():
    cache, _ = cache_of()
    made = within_budget(cache, parse_budget("snapkv:1"))
    assert all(layer.keys is whole.keys for layer, whole in zip(made.layers, cache.layers, strict=True))


def test_queries_of_every_block_are_needed():
    cache, queries = cache_of((2, 2))
    del queries[1]
    with pytest.raises(ValueError, match="query: those of 0 tokens given"):
        within_budget(cache, parse_budget("snapkv:0.5,window=8"), queries)
