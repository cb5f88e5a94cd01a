import torch

from tasks.prune.structure.profile_facts import facts_of
from tasks.prune.structure.profiles import NONE, Profile, Profiles
from tests.cases import gpt_neox, llama

GROUP = (16 + 8 + 8 + 16) * 32  # q, k, v and o of a head group of llama()
CHANNEL = 3 * 32


def test_what_is_left_and_held_is_counted():
    model = llama()
    whole = sum(parameter.numel() for parameter in model.parameters())
    block = 2 * GROUP + 64 * CHANNEL + 2 * 32
    profiles = Profiles(model)
    profiles.add(Profile(name="heads", kept={1: {"head_groups": torch.tensor([0])}}))
    profiles.add(Profile(name="ffn", kept={0: {"channels": torch.arange(40)}, 2: {"channels": torch.arange(60)}}))
    profiles.add(Profile(name="depth", blocks=[2]))
    profiles.switch("ffn")
    none, heads, ffn, depth = facts_of(profiles)
    assert profiles.active == "ffn"
    assert (none.name, none.blocks, none.head_groups, none.channels) == (NONE, 3, 6, 192)
    assert (heads.name, heads.blocks, heads.head_groups, heads.channels) == ("heads", 3, 5, 192)
    assert (ffn.name, ffn.blocks, ffn.head_groups, ffn.channels) == ("ffn", 3, 6, 164)
    assert (depth.name, depth.blocks, depth.head_groups, depth.channels) == ("depth", 2, 4, 128)
    assert none.parameters == whole
    assert (heads.parameters, heads.own_bytes) == (whole - GROUP, 4 * GROUP)
    assert (ffn.parameters, ffn.own_bytes) == (whole - 28 * CHANNEL, 4 * 100 * CHANNEL)
    assert (depth.parameters, depth.own_bytes) == (whole - block, 0)
    buffers = none.shared_bytes - 4 * whole  # of rotary positions, which every profile shares
    for each in (none, heads, ffn, depth):
        assert each.own_bytes + each.shared_bytes == 4 * each.parameters + buffers


def test_what_a_model_has_not_is_none():
    profiles = Profiles(gpt_neox())
    assert facts_of(profiles)[0].head_groups is None
