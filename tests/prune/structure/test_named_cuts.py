import pytest
import torch

from tasks.calibrate.importance.influence import Influence
from tasks.calibrate.importance.weight_norm import WeightNorm
from tasks.model.cost import sizes_of
from tasks.prune.structure.named_cuts import named_cuts
from tasks.prune.structure.profiles import NONE, Profiles
from tests.cases import BLOCKS, FFN, batches, gemma3, llama, opt

WINDOWS = batches((4, 16), (4, 16), (4, 16))


def scores_of(model):
    blocks = Influence().score(model, WINDOWS)
    return [units | block for units, block in zip(WeightNorm().score(model), blocks, strict=True)]


@pytest.mark.parametrize("make", [llama, opt, gemma3])
def test_every_cut_is_another_model_and_takes_its_share(make):
    model = (
        make(num_attention_heads=8) if make is opt else make(num_attention_heads=8, num_key_value_heads=4, head_dim=8)
    )
    _, full = sizes_of(model)
    blocks, groups = len(full), full[0].kv_heads
    profiles = Profiles(model)
    for profile in named_cuts(model, scores_of(model), shares=(0.1, 0.3), blocks=(1, 2), round_to=4):
        profiles.add(profile)
    assert profiles.names == [
        NONE,
        *("head groups -10%", "head groups -30%", "channels -10%", "channels -30%", "blocks -1", "blocks -2"),
    ]
    widths = {}
    for name in profiles.names:
        with profiles.using(name):
            widths[name] = sizes_of(model)[1]
    for share in (0.1, 0.3):
        left = [each.kv_heads for each in widths[f"head groups -{share:.0%}"]]
        assert sum(left) == blocks * groups - round(share * blocks * groups)
        assert min(left) >= 1
    assert {each.channels for each in widths["channels -10%"]} == {56}  # 57.6 to the nearest 4
    assert {each.channels for each in widths["channels -30%"]} == {44}  # 44.8
    assert [len(widths[f"blocks -{number}"]) for number in (1, 2)] == [blocks - 1, blocks - 2]


def test_the_lowest_go_and_the_best_of_a_block_stays():
    model = llama(num_attention_heads=8, num_key_value_heads=4, head_dim=4)
    low, high = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([14.0, 13.0, 12.0, 11.0])
    blocks = torch.tensor([[3.0], [1.0], [2.0]])
    scores = [{"head_groups": each, "blocks": block} for each, block in zip((high, low, high), blocks, strict=True)]
    heads, depth = named_cuts(model, scores, shares=(0.4,), blocks=(2,))
    kept = {block: kinds["head_groups"].tolist() for block, kinds in heads.kept.items()}
    assert kept == {0: [0, 1, 2], 1: [3], 2: [0, 1, 2]}  # 5 of 12: three of block 1, then the two lowest others
    assert depth.blocks == [1, 2]


def test_a_share_below_a_step_is_refused():
    with pytest.raises(ValueError, match=r"channels: 0\.1 given for block 0, valid is 0 or 0\.5 to 0\.5"):
        named_cuts(llama(), [{"channels": torch.ones(FFN)}] * BLOCKS, shares=(0.1,), round_to=32)
