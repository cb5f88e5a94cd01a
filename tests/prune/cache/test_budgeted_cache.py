"""Generation with a budgeted cache against the plain one, and against attention with an explicit keep."""

import math

import pytest
import torch
from transformers import DynamicCache

from tasks.prune.cache.budgeted_cache import budgeted_cache
from tasks.prune.cache.key_norm import KeyNorm
from tasks.prune.cache.queries import watching_queries
from tasks.prune.cache.snapkv import SnapKV
from tasks.prune.cache.window import SlidingWindow
from tests.cases import FAMILIES, batches, gemma2, gpt_neox, llama, mistral, qwen3
from tests.prune.structure.profiled import built

SLIDING = ("mistral", "gemma2", "gemma3")
FULL = [family for family in FAMILIES if family not in SLIDING]
PROMPT, NEW = 20, 9
IDS = batches((2, PROMPT + NEW))[0]
HALF = [SlidingWindow(ratio=0.5), SnapKV(ratio=0.5, window=4, pool=3), KeyNorm(ratio=0.5)]
WHOLE = [SlidingWindow(ratio=1), SnapKV(ratio=1, window=4), KeyNorm(ratio=1)]
HOW = {"max_new_tokens": NEW, "min_new_tokens": NEW, "output_logits": True, "return_dict_in_generate": True}


def generate(model, ids, cache=None, **how):
    """Greedy; ids that happen to be the padding's are words like others."""
    attended = torch.ones_like(ids)
    return model.generate(ids, attention_mask=attended, past_key_values=cache, **{"do_sample": False, **HOW, **how})


def held(cache):
    return sum(each.nbytes for layer in cache.layers for each in (layer.keys, layer.values))


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("budget", WHOLE, ids=str)
@pytest.mark.parametrize("family", FULL)
def test_all_of_the_cache_is_bit_equal_to_the_plain_one(family, budget, rows):
    model, ids = FAMILIES[family](), IDS[:rows, :PROMPT]
    expected = generate(model, ids)
    with budgeted_cache(model, budget) as cache:
        found = generate(model, ids, cache)
    assert torch.equal(found.sequences, expected.sequences)
    assert torch.equal(torch.stack(found.logits), torch.stack(expected.logits))


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("budget", HALF, ids=str)
@pytest.mark.parametrize("family", FULL)
def test_bytes_fall_by_the_ratio_and_the_output_is_as_long(family, budget, rows):
    model, ids = FAMILIES[family](), IDS[:rows, : PROMPT - 1]
    expected = generate(model, ids)
    plain = DynamicCache(config=model.config)
    with torch.no_grad():
        model(ids, past_key_values=plain, use_cache=True)
    with torch.no_grad(), budgeted_cache(model, budget) as cache:
        model(ids, past_key_values=cache, use_cache=True)
    kept = math.ceil(0.5 * (PROMPT - 1))
    assert held(cache) == held(plain) * kept // (PROMPT - 1)
    assert cache.get_seq_length() == PROMPT - 1
    with budgeted_cache(model, budget) as cache:
        found = generate(model, ids, cache)
    assert found.sequences.shape == expected.sequences.shape
    assert torch.equal(found.logits[0], expected.logits[0])  # the prompt attends to all of itself
    assert not torch.equal(torch.stack(found.logits[1:]), torch.stack(expected.logits[1:]))
    assert {layer.keys.shape[2] for layer in cache.layers} == {kept + NEW - 1}  # what is generated all stays
    assert cache.get_seq_length() == PROMPT - 1 + NEW - 1


def with_keep(model, keep_BQT):
    """Logits of the whole text in one forward, where what follows the prompt sees only these of its positions."""
    seen = torch.ones(PROMPT + NEW, PROMPT + NEW, dtype=torch.bool).tril().expand(*keep_BQT.shape[:2], -1, -1).clone()
    seen[:, :, PROMPT:, :PROMPT] = keep_BQT[:, :, None]
    positions = torch.arange(PROMPT + NEW).expand(len(IDS), -1)
    with torch.no_grad():
        return model(IDS, attention_mask=seen, position_ids=positions, use_cache=False).logits[:, PROMPT:]


def continued(model, budget, pieces):
    """Logits of what follows the prompt, read in such pieces behind a budgeted cache."""
    with torch.no_grad(), budgeted_cache(model, budget) as cache:
        model(IDS[:, :PROMPT], past_key_values=cache, use_cache=True)
        rest = IDS[:, PROMPT:].split(pieces, dim=1)
        return torch.cat([model(each, past_key_values=cache, use_cache=True).logits for each in rest], dim=1)


@pytest.mark.parametrize("pieces", [[NEW], [1] * NEW, [4, 1, 1, 3]], ids=str)
@pytest.mark.parametrize("family", FULL)
def test_a_window_equals_attention_with_an_explicit_keep(family, pieces):
    model = FAMILIES[family]().double()
    keep = torch.zeros(len(IDS), 1, PROMPT, dtype=torch.bool)
    keep[:, :, [0, 1, 2, 3, 16, 17, 18, 19]] = True  # 8 of 20: four sinks and the four latest
    expected = with_keep(model, keep)
    whole = with_keep(model, torch.ones_like(keep))
    found = continued(model, SlidingWindow(ratio=0.4), pieces)
    assert (expected - whole).abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # families rotate in float32


@pytest.mark.parametrize("budget", [*HALF, SnapKV(ratio=0.3, window=2, pool=1)], ids=str)
@pytest.mark.parametrize("make", [llama, qwen3, gpt_neox])
def test_keeps_of_each_head_equal_attention_with_these_keeps(make, budget):
    """One block, whose keys are the same whatever later tokens attend to."""
    model = make(num_hidden_layers=1).double()
    cache, seen = DynamicCache(config=model.config), {}
    with torch.no_grad(), watching_queries(model, PROMPT, seen.__setitem__):
        model(IDS[:, :PROMPT], past_key_values=cache, use_cache=True)
    layer = cache.layers[0]
    kept = budget.keep(layer.keys, layer.values, seen[0])
    keep = torch.zeros(*layer.keys.shape[:3], dtype=torch.bool).scatter(2, kept, True)
    keep = keep.repeat_interleave(seen[0].shape[1] // keep.shape[1], dim=1)  # as the query heads read it
    found = continued(model, budget, [1] * NEW)
    torch.testing.assert_close(found, with_keep(model, keep), rtol=0, atol=1e-6)


@pytest.mark.parametrize("budget", HALF, ids=str)
def test_each_prompt_of_a_batch_is_on_its_own(budget):
    model = llama().double()
    both = continued(model, budget, [1] * NEW)
    for row in range(2):
        with torch.no_grad(), budgeted_cache(model, budget) as cache:
            model(IDS[row : row + 1, :PROMPT], past_key_values=cache, use_cache=True)
            one = model(IDS[row : row + 1, PROMPT:], past_key_values=cache, use_cache=True).logits
        torch.testing.assert_close(one[0], both[row], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["heads", "depth", "all"])
def test_a_profile_in_force_is_a_model_like_others(name):
    """Blocks with fewer heads, blocks that are gone, and one without attention, whose share stays empty."""
    model, ids = llama(), IDS[:, :PROMPT]
    with built(model).using(name):
        expected = generate(model, ids)
        for budget in (*WHOLE, *HALF):
            with budgeted_cache(model, budget) as cache:
                found = generate(model, ids, cache)
            assert torch.equal(torch.stack(found.logits), torch.stack(expected.logits)) == (budget.ratio == 1)


@pytest.mark.parametrize("make", [mistral, gemma2])
def test_a_family_with_windows_is_fine_without_them(make):
    full = {"sliding_window": None} if make is mistral else {"layer_types": ["full_attention"] * 4}
    model = make(**full)
    with budgeted_cache(model, HALF[1]) as cache:
        assert generate(model, IDS[:, :PROMPT], cache).sequences.shape == (2, PROMPT + NEW)


@pytest.mark.parametrize("family", SLIDING)
def test_sliding_windows_are_refused(family):
    valid = "budget: the model's cache has a DynamicSlidingWindowLayer, valid are blocks that attend to every token"
    with pytest.raises(ValueError, match=valid), budgeted_cache(FAMILIES[family](), HALF[0]):
        pass


@pytest.mark.parametrize("budget", HALF, ids=str)
def test_beams_go_on_from_the_same_prompt(budget):
    model = llama()
    with budgeted_cache(model, budget) as cache:
        found = generate(model, IDS[:, :PROMPT], cache, num_beams=3)
    assert found.sequences.shape == (2, PROMPT + NEW)
    assert cache.get_seq_length() == PROMPT + NEW - 1


@pytest.mark.parametrize("budget", HALF, ids=str)
def test_a_cache_that_is_reset_reads_another_prompt(budget):
    model = llama()
    with budgeted_cache(model, budget) as cache:
        first = generate(model, IDS[:, :PROMPT], cache).sequences
        cache.reset()
        assert cache.get_seq_length() == 0
        assert torch.equal(generate(model, IDS[:, :PROMPT], cache).sequences, first)


def test_padding_is_refused_and_no_hook_stays():
    model = llama()
    attended = torch.ones(2, PROMPT, dtype=torch.long)
    attended[0, 0] = 0
    with (
        pytest.raises(ValueError, match="attention_mask: padding given, valid with a KV budget are prompts of one len"),
        budgeted_cache(model, HALF[0]) as cache,
    ):
        model.generate(IDS[:, :PROMPT], attention_mask=attended, past_key_values=cache, max_new_tokens=1)
    assert not model._forward_pre_hooks


def test_what_was_dropped_does_not_come_back():
    model = llama()
    with torch.no_grad(), budgeted_cache(model, HALF[0]) as cache:
        model(IDS, past_key_values=cache, use_cache=True)
    with pytest.raises(ValueError, match="cache: crop by -1 given"):
        cache.crop(-1)
