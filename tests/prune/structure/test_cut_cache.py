"""A profile that goes on from the uncut model's cache, against the uncut model with the same units silenced."""

import gc
import weakref
from contextlib import ExitStack
from copy import deepcopy

import pytest
import torch
from transformers import DynamicCache

from tasks.model.anatomy import find_blocks
from tasks.model.units import units_of
from tasks.prune.structure import cut_cache as cutting
from tasks.prune.structure.cut_cache import cut_cache, slots_of
from tasks.prune.structure.profiles import NONE, Profile, Profiles
from tasks.prune.structure.width import masked
from tests.cases import FAMILIES, SLIDING, batches, gemma2, llama, qwen2
from tests.prune.structure.profiled import CUTTABLE, built, indices

PROMPT = 2 * SLIDING  # so that sliding blocks have forgotten some of it
IDS = batches((2, PROMPT + 6))[0]
PIECES = [1, 1, 3, 1]


def read(model):
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(IDS[:, :PROMPT], past_key_values=cache, use_cache=True)
    return cache


def continued(model, cache):
    rest = IDS[:, PROMPT:].split(PIECES, dim=1)
    with torch.no_grad():
        return torch.cat([model(each, past_key_values=cache, use_cache=True).logits for each in rest], dim=1)


def silenced(model, profile, cache):
    """The uncut model over its whole cache, where what the profile lacks adds nothing."""
    blocks, units = find_blocks(model)[1], units_of(model)
    with ExitStack() as hooks:
        hooks.enter_context(masked(model, profile.kept))
        for index in profile.blocks:
            hook = blocks[index].register_forward_hook(lambda _, inputs, output: inputs[0])
            hooks.callback(hook.remove)
        readers = [(index, units[index].head_groups.reader) for index in profile.attention]
        readers += [(index, units[index].channels.reader) for index in profile.ffn]
        for index, name in readers:
            reader = blocks[index].get_submodule(name)
            hook = reader.register_forward_hook(lambda _, inputs, output: torch.zeros_like(output))
            hooks.callback(hook.remove)
        return continued(model, cache)


@pytest.mark.parametrize("name", ["heads", "ffn", "depth", "all"])
@pytest.mark.parametrize("family", CUTTABLE)
def test_going_on_with_a_profile_is_going_on_with_the_rest_silenced(family, name):
    model = FAMILIES[family]()
    profiles, cache = built(model), read(model)
    expected = silenced(model, profiles.cut(name), deepcopy(cache))
    dense = continued(model, deepcopy(cache))
    assert (expected - dense).abs().max() > 1e-3
    fitted = cut_cache(profiles, name, cache)
    with profiles.using(name):
        found = continued(model, fitted)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", CUTTABLE)
def test_none_is_bit_equal_and_the_cache_it_came_from_is_not_written(family):
    model = FAMILIES[family]()
    profiles, cache = built(model), read(model)
    before = deepcopy(cache)
    expected = continued(model, deepcopy(cache))
    for _ in range(2):
        for name in profiles.names:
            fitted = cut_cache(profiles, name, cache)
            with profiles.using(name):
                found = continued(model, fitted)
            assert torch.equal(found, expected) == (name == NONE)
    for layer, untouched in zip(cache.layers, before.layers, strict=True):
        assert torch.equal(layer.keys, untouched.keys)
        assert torch.equal(layer.values, untouched.values)
        assert layer.get_seq_length() == untouched.get_seq_length() == PROMPT
    assert profiles.active == NONE


def test_only_the_rows_of_kept_heads_are_there_and_blocks_are_numbered_anew():
    model = llama()
    profiles, cache = Profiles(model), read(model)
    profiles.add(Profile(name="one", kept={2: {"head_groups": indices(1)}}, blocks=(0,)))
    fitted = cut_cache(profiles, "one", cache)
    assert len(fitted.layers) == 2
    assert fitted.layers[0].keys is cache.layers[1].keys
    assert torch.equal(fitted.layers[1].keys, cache.layers[2].keys[:, 1:])
    assert torch.equal(fitted.layers[1].values, cache.layers[2].values[:, 1:])


def test_query_heads_and_channels_leave_the_cache_as_it_is():
    model = llama()
    profiles, cache = Profiles(model), read(model)
    profiles.add(Profile(name="queries", kept={0: {"query_heads": indices(0, 3), "channels": indices(0)}}))
    fitted = cut_cache(profiles, "queries", cache)
    assert all(new.keys is old.keys for new, old in zip(fitted.layers, cache.layers, strict=True))


@pytest.mark.parametrize("gone", [[0], [1], [0, 1], [0, 2], [1, 3]])
def test_blocks_without_attention_have_no_share(gone):
    """Of two kinds of attention, where the slots of what is left are not in the order of the blocks."""
    model = gemma2()
    profiles, cache = Profiles(model), read(model)
    profiles.add(Profile(name="silent", attention=gone))
    expected = silenced(model, profiles.cut("silent"), deepcopy(cache))
    fitted = cut_cache(profiles, "silent", cache)
    assert len(fitted.layers) == 4
    assert sum(layer.is_initialized for layer in fitted.layers) == 4 - len(gone)
    with profiles.using("silent"):
        assert len(slots_of(model)) == 4 - len(gone)
        torch.testing.assert_close(continued(model, fitted), expected, rtol=0, atol=1e-5)


def test_a_model_that_came_with_holes_is_read_by_its_own_slots():
    model = qwen2()
    profiles = Profiles(model)
    profiles.add(Profile(name="silent", attention=(0,)))
    profiles.switch("silent")
    inner, cache = Profiles(model), read(model)  # to these, the model without that attention is the whole one
    inner.add(Profile(name="less", kept={2: {"head_groups": indices(1)}}))
    expected = silenced(model, inner.cut("less"), deepcopy(cache))
    fitted = cut_cache(inner, "less", cache)
    with inner.using("less"):
        torch.testing.assert_close(continued(model, fitted), expected, rtol=0, atol=1e-5)


def test_the_slots_of_a_profile_are_looked_up_once_and_go_with_it(monkeypatch):
    model = llama()
    profiles, cache = built(model), read(model)
    looked = []
    monkeypatch.setattr(cutting, "slots_of", lambda given: looked.append(given) or slots_of(given))
    first, second = (cut_cache(profiles, "all", cache) for _ in range(2))
    assert len(looked) == 2  # of the whole model and of the cut one
    assert first is not second
    with profiles.using("all"):
        once = continued(model, first)
        torch.testing.assert_close(continued(model, second), once, rtol=0, atol=0)
    known = weakref.ref(profiles)
    del profiles
    gc.collect()
    assert known() is None


def test_the_profile_in_force_stays():
    model = llama()
    profiles, cache = built(model), read(model)
    profiles.switch("depth")
    cut_cache(profiles, "heads", cache)
    assert profiles.active == "depth"
    with pytest.raises(ValueError, match="profile: 'huge' given, valid is none, heads, ffn, depth, all"):
        cut_cache(profiles, "huge", cache)
