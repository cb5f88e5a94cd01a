import random

import pytest
import torch
from safetensors.torch import load_file

from tasks.model.anatomy import find_blocks
from tasks.prune.structure.depth import slice_blocks
from tasks.prune.structure.logits import digest_of_logits
from tasks.prune.structure.profile_folder import load_profiles, save_profiles
from tasks.prune.structure.profiles import NONE, Profile, Profiles
from tasks.prune.structure.switching import switching_time, switching_times
from tasks.prune.structure.width import slice_units
from tests.cases import BLOCKS, FAMILIES, FFN, batches, llama, opt_post_norm, qwen3

CUTTABLE = [family for family in FAMILIES if family != "gpt_neox"]
IDS = batches((2, 20))[0]
HASH = "a" * 64


def indices(*kept):
    return torch.tensor(kept, dtype=torch.int64)


def cuts():
    return [
        Profile(name="heads", kept={0: {"head_groups": indices(1)}, 2: {"head_groups": indices(0)}}),
        Profile(name="ffn", kept={block: {"channels": torch.arange(block, 40)} for block in range(BLOCKS)}),
        Profile(name="depth", blocks=(1,)),
        Profile(
            name="all",
            kept={0: {"channels": torch.arange(9)}, 2: {"head_groups": indices(1)}},
            blocks=(1,),
            attention=(0,),
            ffn=(2,),
        ),
    ]


def built(model):
    profiles = Profiles(model)
    for profile in cuts():
        profiles.add(profile)
    return profiles


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


@pytest.mark.parametrize("family", ["llama", "qwen2", "opt", "gemma3"])
def test_a_folder_gives_the_same_profiles_and_holds_only_what_they_change(family, tmp_path):
    model = FAMILIES[family]()
    profiles = built(model)
    with profiles.using("heads"), torch.no_grad():
        find_blocks(model)[1][0].self_attn.v_proj.weight.mul_(0.5)
    digests = {}
    for name in profiles.names:
        with profiles.using(name):
            digests[name] = digest_of_logits(model, IDS)
    save_profiles(profiles, HASH, tmp_path / "a")
    loaded = load_profiles(FAMILIES[family](), HASH, tmp_path / "a")
    assert loaded.names == profiles.names
    for name in loaded.names:
        with loaded.using(name):
            assert digest_of_logits(loaded.model, IDS) == digests[name]
    save_profiles(loaded, HASH, tmp_path / "b")
    for file in ("profiles.json", "profiles.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    stored = sum(tensor.nbytes for tensor in load_file(tmp_path / "a" / "profiles.safetensors").values())
    units = 1 + 1 + 40 + 39 + 38 + 9 + 1  # that stay, as the cuts name them
    assert stored == 4 * (units + 8 * 32)  # and v of one group


def test_profiles_of_another_model_or_damaged_are_refused(tmp_path):
    profiles = built(llama())
    save_profiles(profiles, HASH, tmp_path)
    with pytest.raises(ValueError, match=f"is of model {HASH}, valid is one of bbb"):
        load_profiles(llama(), "b" * 64, tmp_path)
    whole = (tmp_path / "profiles.safetensors").read_bytes()
    (tmp_path / "profiles.safetensors").write_bytes(whole[:-10])
    with pytest.raises(ValueError, match=r"profiles.safetensors cannot be read"):
        load_profiles(llama(), HASH, tmp_path)
    (tmp_path / "profiles.safetensors").unlink()
    with pytest.raises(ValueError, match=r"profiles.safetensors cannot be read"):
        load_profiles(llama(), HASH, tmp_path)
    (tmp_path / "profiles.json").write_text('{"format": "espalier profiles", "version": 2}')
    with pytest.raises(ValueError, match="espalier profiles of version 2, valid is espalier profiles of version 1"):
        load_profiles(llama(), HASH, tmp_path)
    with pytest.raises(ValueError, match=r"profiles.json cannot be read"):
        load_profiles(llama(), HASH, tmp_path / "elsewhere")


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


def test_switching_is_timed_and_leaves_the_profile_in_force():
    profiles = built(llama())
    profiles.switch("depth")
    took = switching_time(profiles, switches=20)
    assert took.switches == 20
    assert 0 < took.median_ms <= took.worst_ms
    assert profiles.active == "depth"
    with pytest.raises(ValueError, match="switches: 0 given"):
        switching_time(profiles, switches=0)
    with pytest.raises(ValueError, match="none but the model itself"):
        switching_time(Profiles(llama()))


def test_switching_is_timed_by_where_it_goes():
    profiles = built(llama())
    took = switching_times(profiles, switches=40)
    assert list(took) == profiles.names
    assert sum(each.switches for each in took.values()) == 40 * len(profiles.names)
    assert all(20 < each.switches < 60 and 0 < each.median_ms <= each.worst_ms for each in took.values())
    assert profiles.active == NONE


def test_tied_weights_and_modes_stay():
    model = FAMILIES["gemma"]()
    profiles = built(model)
    model.train()
    for name in profiles.names:
        profiles.switch(name)
        assert model.lm_head.weight is model.model.embed_tokens.weight
    profiles.switch(NONE)
    assert all(module.training for module in model.modules())
