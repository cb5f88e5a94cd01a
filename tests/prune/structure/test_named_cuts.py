import pytest
import torch

from tasks.calibrate.importance.influence import Influence
from tasks.calibrate.importance.weight_norm import WeightNorm
from tasks.model.cost import sizes_of
from tasks.prune.structure.named_cuts import NamedCut, check_cuts, parse_cuts, usual_cuts
from tasks.prune.structure.profiles import NONE, Profiles
from tests.cases import BLOCKS, FFN, batches, gemma3, gpt_neox, llama, opt

WINDOWS = batches((4, 16), (4, 16), (4, 16))


def scores_of(model):
    blocks = Influence().score(model, WINDOWS)
    return [units | block for units, block in zip(WeightNorm().score(model), blocks, strict=True)]


def names(cuts):
    return ",".join(map(str, cuts))


@pytest.mark.parametrize("make", [llama, opt, gemma3])
def test_every_cut_is_another_model_and_takes_its_share(make):
    model = (
        make(num_attention_heads=8) if make is opt else make(num_attention_heads=8, num_key_value_heads=4, head_dim=8)
    )
    _, full = sizes_of(model)
    blocks, groups = len(full), full[0].kv_heads
    cuts, scores, profiles = (
        parse_cuts("heads10,heads30,ffn10,ffn30,depth30,depth60"),
        scores_of(model),
        Profiles(model),
    )
    check_cuts(model, cuts, round_to=4)
    for cut in cuts:
        profiles.add(cut.profile(model, scores, round_to=4))
    assert profiles.names == [NONE, "heads10", "heads30", "ffn10", "ffn30", "depth30", "depth60"]
    widths = {}
    for name in profiles.names:
        with profiles.using(name):
            widths[name] = sizes_of(model)[1]
    for percent in (10, 30):
        left = [each.kv_heads for each in widths[f"heads{percent}"]]
        assert sum(left) == blocks * groups - round(percent * blocks * groups / 100)
        assert min(left) >= 1
    assert {each.channels for each in widths["ffn10"]} == {56}  # 57.6 to the nearest 4
    assert {each.channels for each in widths["ffn30"]} == {44}  # 44.8
    assert [len(widths[name]) for name in ("depth30", "depth60")] == [blocks - 1, blocks - 2]


def test_the_lowest_go_and_the_best_of_a_block_stays():
    model = llama(num_attention_heads=8, num_key_value_heads=4, head_dim=4)
    low, high = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([14.0, 13.0, 12.0, 11.0])
    blocks = torch.tensor([[3.0], [1.0], [2.0]])
    scores = [{"head_groups": each, "blocks": block} for each, block in zip((high, low, high), blocks, strict=True)]
    heads, depth = (cut.profile(model, scores) for cut in parse_cuts("heads40, depth66"))
    kept = {block: kinds["head_groups"].tolist() for block, kinds in heads.kept.items()}
    assert kept == {0: [0, 1, 2], 1: [3], 2: [0, 1, 2]}  # 5 of 12: three of block 1, then the two lowest others
    assert depth.blocks == [1, 2]


def test_blocks_lose_the_heads_without_which_the_loss_rises_least_whatever_the_scale_of_their_scores():
    model = llama(num_attention_heads=8, num_key_value_heads=4, head_dim=4)
    order, large = torch.tensor([1.0, 4.0, 2.0, 3.0]), torch.tensor([900.0, 600.0, 700.0, 800.0])
    scores = [{"head_groups": each} for each in (order, large, order)]
    rises = [[0.0, 1.0, 2.0, 9.0], [0.0, 0.5, 0.6, 0.7], [0.0, 0.8, 3.0, 9.0]]
    (cut,) = parse_cuts("heads40")  # 5 of 12: 3 + 1 + 1 would be 2.5, 2 + 1 + 2 would be 5.4
    kept = {
        block: kinds["head_groups"].tolist() for block, kinds in cut.profile(model, scores, rises=rises).kept.items()
    }
    assert kept == {0: [1, 2, 3], 1: [0], 2: [1, 2, 3]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("neck10", "profiles: neck10 given, valid is heads, ffn, depth with a percentage, such as heads20"),
        ("heads", "profiles: 'heads' given, valid is heads, ffn, depth with a percentage"),
        ("", "profiles: '' given, valid is"),
        ("ffn100", "profiles: ffn100 given, valid is"),
        ("ffn0", "profiles: ffn0 given, valid is"),
        ("heads10,ffn20,heads10.0", "profiles: heads10 given 2 times, valid is each once"),
    ],
)
def test_words_that_are_no_cuts_are_refused(text, says):
    with pytest.raises(ValueError, match="profiles: ") as refused:
        parse_cuts(text)
    assert str(refused.value).startswith(says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("heads5", "profiles: heads5 given, of the 6 head groups of this model valid is heads16.67 to heads50"),
        ("heads60", "profiles: heads60 given, of the 6 head groups of this model valid is heads16.67 to heads50"),
        ("depth10", "profiles: depth10 given, of the 3 blocks of this model valid is depth33.33 to depth66.67"),
        ("ffn10", "profiles: ffn10 given; channels: 0.1 given for block 0, valid is 0.5; the least"),
        ("depth30,depth40", "profiles: depth30 and depth40 given, which are the same cut of this model"),
        ("heads30,heads40", "profiles: heads30 and heads40 given, which are the same cut of this model"),
    ],
)
def test_a_cut_that_the_model_cannot_take_is_refused_with_what_is_valid(text, says):
    assert FFN == 64
    assert BLOCKS == 3
    with pytest.raises(ValueError, match="profiles: ") as refused:
        check_cuts(llama(), parse_cuts(text), round_to=32)
    assert str(refused.value).startswith(says)
    assert "\n" not in str(refused.value)


def test_what_is_said_to_be_valid_is():
    check_cuts(llama(), parse_cuts("heads16.67,heads50,depth33.33,depth66.67,ffn50"), round_to=32)


def test_a_model_without_such_units_says_what_it_has():
    with pytest.raises(ValueError, match="units: head_groups given, block 0 of this gpt_neox has channels"):
        check_cuts(gpt_neox(), parse_cuts("heads30"))
    check_cuts(gpt_neox(), parse_cuts("depth30,ffn20"), round_to=16)
    assert names(usual_cuts(gpt_neox(), round_to=16)) == "ffn20,depth20"


def test_the_usual_cuts_are_those_that_a_model_can_take():
    wide = llama(num_hidden_layers=5, num_attention_heads=8, num_key_value_heads=4, head_dim=4)
    assert names(usual_cuts(wide, round_to=1)) == "heads10,heads20,heads30,ffn10,ffn20,ffn30,depth20"
    # of 6 head groups 0.6, 1.2 and 1.8 go, of 4 steps of 16 channels 0.4 (none), 0.8 and 1.2, of 3 blocks 0.6
    assert names(usual_cuts(llama(), round_to=16)) == "heads10,heads30,ffn20,depth20"
    assert names(usual_cuts(llama(num_hidden_layers=2), round_to=64)) == "heads20"
    with pytest.raises(ValueError, match="profiles: heads10 given, of the 2 head groups of this model valid is none"):
        usual_cuts(llama(num_hidden_layers=2, num_key_value_heads=1), round_to=64)


def test_a_cut_is_named_by_its_words():
    assert names(parse_cuts("ffn12.5,depth25.0")) == "ffn12.5,depth25"
    assert NamedCut(kind="ffn", percent=30) == parse_cuts("ffn30")[0]
