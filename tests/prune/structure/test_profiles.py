"""Profiles: cuts of one model that are switched in place, to the last bit."""

import random

import pytest
import torch

from tasks.prune.structure.depth import slice_blocks
from tasks.prune.structure.logits import digest_of_logits
from tasks.prune.structure.profiles import NONE, Profile, Profiles
from tasks.prune.structure.width import slice_units
from tests.cases import BLOCKS, FAMILIES, FFN, llama, opt_post_norm, qwen3
from tests.prune.structure.profiled import CUTTABLE, IDS, built, cuts, indices


def addresses(model):
    return {name: parameter.data_ptr() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("family", CUTTABLE)
def test_any_switches_give_every_profile_back_to_the_last_bit(family):
    model = FAMILIES[family]()
    modules, config, dense = list(model.named_modules()), model.config.to_dict(), digest_of_logits(model, IDS)
    profiles = built(model)
    assert (profiles.names, profiles.active) == ([NONE, "heads", "ffn", "depth", "all"], NONE)
    digests = {}
    for name in profiles.names:
        with profiles.using(name):
            digests[name] = digest_of_logits(model, IDS)
    assert digests[NONE] == dense
    assert len(set(digests.values())) == len(profiles.names)
    chosen = random.Random(0)
    for _ in range(50):
        name = chosen.choice(profiles.names)
        profiles.switch(name)
        assert digest_of_logits(model, IDS) == digests[name]
    profiles.switch(NONE)
    assert list(model.named_modules()) == modules
    assert model.config.to_dict() == config


@pytest.mark.parametrize("family", CUTTABLE)
def test_a_profile_is_the_model_cut_by_slices(family):
    model, cut = FAMILIES[family](), FAMILIES[family]()
    profile = cuts()[-1]
    profiles = built(model)
    slice_units(cut, profile.kept)
    slice_blocks(cut, blocks=profile.blocks, attention=profile.attention, ffn=profile.ffn)
    with profiles.using("all"):
        assert digest_of_logits(model, IDS) == digest_of_logits(cut, IDS)
        ids, how = IDS[:, :7], {"max_new_tokens": 9, "min_new_tokens": 9, "do_sample": False}
        assert torch.equal(model.generate(ids, **how), cut.generate(ids, **how))


def test_what_is_not_cut_is_the_model_s_own_memory():
    model = qwen3()
    dense = addresses(model)
    profiles = built(model)
    cut = {
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.self_attn.v_proj.weight",
        "model.layers.0.self_attn.o_proj.weight",
    }
    with profiles.using("heads"):
        here = addresses(model)
        assert {name for name in dense if here[name] != dense[name]} == cut | {
            name.replace(".0.", ".2.") for name in cut
        }
    with profiles.using("depth"):
        assert set(addresses(model).values()) < set(dense.values())
    assert profiles.own_bytes(NONE) == profiles.own_bytes("depth") == 0


def test_own_bytes_are_the_numbers_of_the_smaller_linears():
    model = qwen3()
    profiles = built(model)
    heads = 2 * (16 + 8 + 8 + 16) * 32 * 4  # of two blocks: q, k, v, o with 1 of 2 groups of 2 heads of 8, float32
    ffn = sum((40 - block) * 32 * 3 * 4 for block in range(BLOCKS))
    both = 9 * 32 * 3 * 4 + (16 + 8 + 8 + 16) * 32 * 4
    assert profiles.own_bytes("heads") == heads
    assert profiles.own_bytes("ffn") == ffn
    assert profiles.own_bytes("all") == both
    assert profiles.own_bytes() == heads + ffn + both
    everything = profiles.shared_bytes(NONE)
    assert everything == sum(4 * each.numel() for each in (*model.parameters(), *model.buffers()))
    for name, own in (("heads", heads), ("ffn", ffn), ("all", both)):
        with profiles.using(name):
            in_force = sum(4 * each.numel() for each in (*model.parameters(), *model.buffers()))
        assert profiles.shared_bytes(name) == in_force - own


def test_weights_replace_those_of_the_plain_cut_and_touch_no_other():
    model = llama()
    dense, before = digest_of_logits(model), [parameter.clone() for parameter in model.parameters()]
    plain = cuts()[1]
    repaired = torch.randn(32, 40)
    name = "model.layers.0.mlp.down_proj.weight"
    profiles = Profiles(model)
    profiles.add(plain)
    profiles.add(Profile(name="repaired", kept=plain.kept, weights={name: repaired}))
    with profiles.using("repaired"):
        assert torch.equal(model.model.layers[0].mlp.down_proj.weight, repaired)
    with profiles.using("ffn"):
        cut = model.model.layers[0].mlp.down_proj.weight
    assert torch.equal(cut, model.model.layers[0].mlp.down_proj.weight[:, :40])
    assert digest_of_logits(model) == dense
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))


def test_what_is_written_into_a_cut_linear_stays_with_its_profile():
    model = llama()
    profiles = built(model)
    dense = digest_of_logits(model)
    with profiles.using("all"), torch.no_grad():
        down = model.model.layers[0].mlp.down_proj
        down.weight.mul_(2)
        written, digest = down.weight.clone(), digest_of_logits(model)
    assert digest_of_logits(model) == dense
    weights = profiles.get("all").weights
    assert list(weights) == ["model.layers.0.mlp.down_proj.weight"]
    assert torch.equal(weights["model.layers.0.mlp.down_proj.weight"], written)
    with profiles.using("all"):
        assert digest_of_logits(model) == digest


@pytest.mark.parametrize(
    ("profile", "same_as"),
    [
        (Profile(name="again"), NONE),
        (Profile(name="again", kept={0: {"channels": torch.arange(FFN)}}), NONE),
        (Profile(name="again", attention=(1,), ffn=(1,)), "depth"),
        (Profile(name="again", kept=cuts()[0].kept), "heads"),
    ],
)
def test_two_profiles_that_are_one_model_are_refused(profile, same_as):
    profiles = built(llama())
    profiles.switch("heads")
    with pytest.raises(ValueError, match=f"'again' given, which is the same model as '{same_as}'"):
        profiles.add(profile)
    assert (profiles.names, profiles.active) == ([NONE, "heads", "ffn", "depth", "all"], "heads")


def test_where_norms_follow_a_block_without_parts_is_not_a_block_less():
    profiles = built(opt_post_norm())
    profiles.add(Profile(name="parts", attention=(1,), ffn=(1,)))
    assert "parts" in profiles.names


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (Profile(name="ffn", blocks=(2,)), "profile: 'ffn' given again, valid is a name other than none, heads, ffn"),
        (Profile(name=NONE, blocks=(2,)), "profile: 'none' given again"),
        (Profile(name="new", blocks=(7,)), r"blocks: \[7\] given, valid are"),
        (Profile(name="new", kept={0: {"channels": indices(1)}}, attention=(0, 1, 2)), "none would be left"),
        (Profile(name="new", kept={0: {"channels": indices(FFN)}}), "indices 0 to 63"),
        (
            Profile(name="new", blocks=(2,), weights={"lm_head.weight": torch.ones(1)}),
            "lm_head.weight given, valid is a parameter of a",
        ),
        (
            Profile(
                name="new",
                kept={0: {"channels": indices(1)}},
                weights={"model.layers.0.mlp.down_proj.weight": torch.ones(32, 2)},
            ),
            r"is torch.float32 of shape \(32, 2\), valid is torch.float32 of shape \(32, 1\)",
        ),
    ],
)
def test_bad_input_changes_nothing(profile, message):
    model = llama()
    profiles = built(model)
    modules = list(model.named_modules())
    with pytest.raises(ValueError, match=message):
        profiles.add(profile)
    assert profiles.names == [NONE, "heads", "ffn", "depth", "all"]
    assert list(model.named_modules()) == modules


@pytest.mark.parametrize("gone", ["blocks", "attention", "ffn"])
def test_units_of_what_a_profile_removes_are_a_contradiction(gone):
    kinds = {"channels": indices(1), "head_groups": indices(1)}
    first = {"blocks": "channels", "attention": "head_groups", "ffn": "channels"}[gone]
    with pytest.raises(ValueError, match=f"kept: {first} of block 1 given, which 'new' removes whole"):
        Profile(name="new", kept={1: kinds}, **{gone: (1,)})
    Profile(name="new", kept={0: kinds}, **{gone: (1,)})


def test_an_unknown_profile_is_refused_and_another_cut_has_to_be_undone_first():
    model = llama()
    profiles = built(model)
    for use in (profiles.switch, profiles.get, profiles.own_bytes, profiles.shared_bytes):
        with pytest.raises(ValueError, match="profile: 'half' given, valid is none, heads, ffn, depth, all"):
            use("half")
    profiles.switch("ffn")
    with (
        slice_units(model, {0: {"channels": indices(0)}}),
        pytest.raises(RuntimeError, match="undo first what was cut later"),
    ):
        profiles.switch("heads")
    profiles.switch("heads")
    assert profiles.active == "heads"


def test_tied_weights_and_modes_stay():
    model = FAMILIES["gemma"]()
    profiles = built(model)
    model.train()
    for name in profiles.names:
        profiles.switch(name)
        assert model.lm_head.weight is model.model.embed_tokens.weight
    profiles.switch(NONE)
    assert all(module.training for module in model.modules())
