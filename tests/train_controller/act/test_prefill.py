"""The prefill that all actions share, and the cache each of them goes on with."""

from copy import deepcopy

import pytest
import torch
from transformers import DynamicCache

from tasks.model.anatomy import find_blocks
from tasks.prune.cache.budgeted_cache import budgeted_cache
from tasks.prune.cache.key_norm import KeyNorm
from tasks.prune.cache.snapkv import SnapKV
from tasks.prune.cache.window import SlidingWindow
from tasks.prune.structure.profiles import NONE
from tasks.prune.structure.width import masked
from tasks.train_controller.act import prefill as act_prefill
from tasks.train_controller.act.actions import Action
from tasks.train_controller.act.prefill import cache_bytes, cache_for, prefill
from tests.cases import FAMILIES, batches, gemma3, llama
from tests.prune.structure.profiled import CUTTABLE, built

FULL = ["llama", "qwen2", "qwen3", "opt", "gemma"]
PROMPT = 20
TEXT = batches((1, PROMPT + 7))[0]
IDS, REST = TEXT[:, :PROMPT], TEXT[:, PROMPT:]
BUDGETS = [SlidingWindow(ratio=0.5), SnapKV(ratio=0.5, window=4), SnapKV(ratio=0.6, window=7), KeyNorm(ratio=0.25)]


def continued(model, cache):
    with torch.no_grad():
        return torch.cat([model(each, past_key_values=cache, use_cache=True).logits for each in REST.split(1, 1)], 1)


def dense(model):
    """The plain cache of the prompt, and the logits of it."""
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        return cache, model(IDS, past_key_values=cache, use_cache=True).logits


@pytest.mark.parametrize("family", CUTTABLE)
def test_the_prefill_is_that_of_the_uncut_model(family):
    model = FAMILIES[family]()
    block, profiles = find_blocks(model)[1][0], built(model)
    with torch.no_grad():
        states = model(IDS, output_hidden_states=True).hidden_states
    (cache, logits), hooks = dense(model), dict(block._forward_hooks)
    profiles.switch("all")
    read = prefill(profiles, IDS)
    assert profiles.active == "all"
    assert torch.equal(read.logits_LV, logits[0])
    assert torch.equal(read.first_block_in_TD, states[0][0])
    assert torch.equal(read.first_block_out_TD, states[1][0])
    assert torch.equal(read.ids_1T, IDS)
    assert read.queries is None
    assert read.prefill_ms > 0
    for one, other in zip(read.cache.layers, cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys)
    assert dict(block._forward_hooks) == hooks


def test_logits_are_float32_and_training_mode_stays():
    model = llama().bfloat16().train()
    read = prefill(built(model), IDS)
    assert read.logits_LV.dtype == torch.float32
    assert read.logits_LV.shape == (PROMPT, 97)
    assert model.training


@pytest.mark.parametrize("family", FULL)
def test_of_a_long_prompt_only_the_logits_that_are_looked_at_are_computed(family, monkeypatch):
    model = FAMILIES[family]()
    profiles, (cache, logits) = built(model), dense(model)
    monkeypatch.setattr(act_prefill, "LOOKED_AT", 12 * logits.shape[2])
    read = prefill(profiles, IDS)
    assert read.logits_LV.shape == (13, logits.shape[2])
    assert torch.allclose(read.logits_LV, logits[0, -13:], atol=1e-5)
    assert torch.equal(read.cache.layers[-1].keys, cache.layers[-1].keys)


def test_the_queries_are_of_as_many_tokens_as_the_budgets_need():
    profiles = built(llama())
    assert prefill(profiles, IDS, budgets=[BUDGETS[0], BUDGETS[3]]).queries is None
    queries = prefill(profiles, IDS, budgets=BUDGETS).queries
    assert {slot: tuple(each.shape) for slot, each in queries.items()} == dict.fromkeys(range(3), (1, 4, 7, 8))


@pytest.mark.parametrize("family", FULL)
def test_none_is_bit_equal_to_going_on_with_the_plain_cache(family):
    model = FAMILIES[family]()
    profiles, (cache, _) = built(model), dense(model)
    read = prefill(profiles, IDS, budgets=BUDGETS)
    expected = continued(model, cache)
    whole = [Action(), *(Action(budget=type(budget)(ratio=1)) for budget in BUDGETS if not budget.needs_queries)]
    for action in [*whole, Action(budget=SnapKV(ratio=1, window=3))]:
        assert torch.equal(continued(model, cache_for(profiles, read, action)), expected)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("family", FULL)
def test_a_budget_alone_is_that_of_generation(family, budget):
    model = FAMILIES[family]()
    profiles = built(model)
    read = prefill(profiles, IDS, budgets=BUDGETS)
    fitted = cache_for(profiles, read, Action(budget=budget))
    assert cache_bytes(fitted) == cache_bytes(read.cache) * budget.count(PROMPT) // PROMPT
    with torch.no_grad(), budgeted_cache(model, budget) as cache:
        model(IDS, past_key_values=cache, use_cache=True)
    assert cache_bytes(cache) == cache_bytes(fitted)
    assert torch.equal(continued(model, fitted), continued(model, cache))


@pytest.mark.parametrize("budget", [None, *BUDGETS], ids=str)
@pytest.mark.parametrize("family", FULL)
def test_a_profile_goes_on_as_the_masked_model_over_the_same_cache(family, budget):
    """What the kept heads hold, with a budget too: each head keeps for itself, and the others are silent anyway."""
    model = FAMILIES[family]()
    profiles = built(model)
    read = prefill(profiles, IDS, budgets=BUDGETS)
    whole = cache_for(profiles, read, Action(budget=budget))
    fitted = cache_for(profiles, read, Action(profile="heads", budget=budget))
    heads = read.cache.layers[0].keys.shape[1]
    assert cache_bytes(fitted) * 3 * heads == cache_bytes(whole) * (heads + 2)  # of two of three blocks one head stays
    with masked(model, profiles.cut("heads").kept):
        expected = continued(model, whole)
    with profiles.using("heads"):
        torch.testing.assert_close(continued(model, fitted), expected, rtol=0, atol=1e-5)


def test_the_prefill_serves_every_action_and_is_written_by_none():
    model = llama()
    profiles = built(model)
    read = prefill(profiles, IDS, budgets=BUDGETS)
    before = deepcopy(read.cache)
    actions = [Action(profile=name, budget=budget) for name in profiles.names for budget in (None, *BUDGETS)]
    found: dict[Action, torch.Tensor] = {}
    for action in actions + actions:
        fitted = cache_for(profiles, read, action)
        assert fitted.get_seq_length() == PROMPT
        with profiles.using(action.profile):
            logits = continued(model, fitted)
        assert fitted.get_seq_length() == PROMPT + REST.shape[1]
        assert torch.equal(logits, found.setdefault(action, logits))
    assert len({tuple(each.flatten().tolist()) for each in found.values()}) == len(actions)
    for layer, untouched in zip(read.cache.layers, before.layers, strict=True):
        assert torch.equal(layer.keys, untouched.keys)
        assert torch.equal(layer.values, untouched.values)
    assert profiles.active == NONE


def test_a_prompt_of_one_token():
    model = llama()
    profiles = built(model)
    read = prefill(profiles, IDS[:, :1], budgets=BUDGETS)
    for budget in BUDGETS:
        assert cache_bytes(cache_for(profiles, read, Action(budget=budget))) == cache_bytes(read.cache)


def test_bytes_by_hand():
    profiles = built(llama())
    read = prefill(profiles, IDS)
    assert cache_bytes(read.cache) == 3 * 2 * 2 * PROMPT * 8 * 4  # blocks, keys and values, heads, tokens, width, bytes
    assert cache_bytes(cache_for(profiles, read, Action(profile="depth"))) == cache_bytes(read.cache) * 2 // 3
    assert cache_bytes(DynamicCache(config=llama().config)) == 0


def test_what_is_refused():
    profiles = built(llama())
    read = prefill(profiles, IDS, budgets=[BUDGETS[1]])
    with pytest.raises(ValueError, match=r"query: those of 4 tokens given, snapkv:0.6,window=7 needs 7"):
        cache_for(profiles, read, Action(budget=BUDGETS[2]))
    with pytest.raises(ValueError, match=r"profile: 'huge' given, valid is none, heads, ffn, depth, all"):
        cache_for(profiles, read, Action(profile="huge"))
    for ids in (IDS[0], IDS[:, :0], IDS.expand(2, -1)):
        with pytest.raises(ValueError, match=r"prompt: ids of shape .* given, valid is \(1, tokens\)"):
            prefill(profiles, ids)
    windowed = built(gemma3())
    read = prefill(windowed, IDS, budgets=[BUDGETS[1]])
    with pytest.raises(ValueError, match=r"budget: the model's cache has a DynamicSlidingWindowLayer"):
        cache_for(windowed, read, Action(budget=BUDGETS[0]))
    assert cache_for(windowed, read, Action(profile="heads")).get_seq_length() == PROMPT
