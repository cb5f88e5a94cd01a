"""The queries that are seen are those the model itself multiplies."""

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tasks.prune.cache.queries import watching_queries
from tests.cases import FAMILIES, batches, llama, opt

IDS = batches((2, 12))[0]
FULL = [family for family in FAMILIES if family not in ("gemma2", "mistral", "gemma3")]  # without sliding windows


def run(model, last=12):
    """The queries by block, and the cache of the same forward."""
    seen, cache = {}, DynamicCache(config=model.config)
    with torch.no_grad(), watching_queries(model, last, seen.__setitem__):
        model(IDS, past_key_values=cache, use_cache=True)
    return seen, cache


@pytest.mark.parametrize("kind", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FULL)
def test_their_products_with_the_keys_are_the_attention_of_the_model(family, kind):
    model = FAMILIES[family]().double()
    model.set_attn_implementation(kind)
    seen, cache = run(model)
    model.set_attn_implementation("eager")  # the only kind that shows its attention
    with torch.no_grad():
        expected = model(IDS, output_attentions=True).attentions
    assert list(seen) == list(range(len(expected)))
    causal = torch.ones(12, 12, dtype=torch.bool).tril()
    for slot, attention in enumerate(expected):
        query, key = seen[slot], cache.layers[slot].keys
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        logits = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
        found = logits.masked_fill(~causal, -torch.inf).softmax(-1)
        torch.testing.assert_close(found, attention, rtol=0, atol=1e-6)  # rotation and eager softmax are in float32


def test_only_the_last_are_seen():
    whole, few = run(llama())[0], run(llama(), last=3)[0]
    assert all(torch.equal(few[slot], whole[slot][:, :, -3:]) for slot in whole)


@pytest.mark.parametrize("make", [llama, opt])
def test_nothing_changes_and_nothing_stays(make):
    model, other = make(), make()
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    with torch.no_grad():
        expected = model(IDS).logits
        seen = []
        with watching_queries(model, 1, lambda slot, _: seen.append(slot)):
            assert torch.equal(model(IDS).logits, expected)
            assert seen == [0, 1, 2]
            other(IDS)
            assert seen == [0, 1, 2]
            with watching_queries(other, 1, lambda slot, _: seen.append(slot + 10)):
                other(IDS)
                model(IDS)
            assert seen == [0, 1, 2, 10, 11, 12, 0, 1, 2]
            other(IDS)
            model(IDS)
            assert seen == [0, 1, 2, 10, 11, 12, 0, 1, 2, 0, 1, 2]
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
        model(IDS)
        assert len(seen) == 12


def test_a_failure_within_leaves_nothing():
    before = dict(ALL_ATTENTION_FUNCTIONS)
    with pytest.raises(KeyError), watching_queries(llama(), 1, lambda slot, query: None):
        raise KeyError
    assert dict(ALL_ATTENTION_FUNCTIONS) == before


def test_a_family_that_attends_by_itself_is_refused():
    model = BloomForCausalLM(BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4))
    with (
        pytest.raises(ValueError, match="budget: queries of BloomAttention cannot be seen"),
        watching_queries(model, 1, lambda slot, query: None),
    ):
        pass
