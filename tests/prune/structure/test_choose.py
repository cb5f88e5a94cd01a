import itertools

import pytest
import torch

from tasks.calibrate.importance import IMPORTANCES
from tasks.model.anatomy import find_blocks
from tasks.model.units import units_of
from tasks.prune.structure.budget import measured
from tasks.prune.structure.choose import choices, choose, choose_units
from tasks.prune.structure.depth import slice_blocks
from tasks.prune.structure.width import slice_units
from tests.cases import FAMILIES, FFN, gpt_neox, llama, opt, qwen3

CUTTABLE = [family for family in FAMILIES if family != "gpt_neox"]
STEP = 8


def random_scores(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        {kind: torch.rand(units.count, generator=generator, dtype=torch.float64) for kind, units in block.kinds.items()}
        for block in units_of(model)
    ]


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def wide(make, **changes):
    """More heads and channels, so that there are steps to choose from."""
    return make(num_attention_heads=16, num_key_value_heads=8, hidden_size=64, head_dim=4, **changes)


@pytest.mark.parametrize("budget", [0.2, 0.45, 0.6])
@pytest.mark.parametrize("family", CUTTABLE)
def test_what_is_said_to_be_left_is_what_is_left(family, budget):
    model = FAMILIES[family]()
    before = [count(block) for block in find_blocks(model)[1]]
    made = choose(model, random_scores(model), budget, round_to=STEP)
    assert made.parameters_before == count(model)
    slice_units(model, made.kept)
    after = [count(block) for block in find_blocks(model)[1]]
    assert made.parameters == count(model)
    assert made.removed == pytest.approx(1 - sum(after) / sum(before), rel=1e-12)
    units = units_of(model)
    assert [widths.channels for widths in made.widths] == [block.channels.count for block in units]
    assert [widths.kv_heads for widths in made.widths] == [block.head_groups.count for block in units]


@pytest.mark.parametrize("kinds", [("channels",), ("head_groups", "channels"), ("channels", "query_heads")])
@pytest.mark.parametrize("budget", [0.1, 0.25, 1 / 3, 0.5])
def test_every_block_meets_the_budget_within_half_a_step(kinds, budget):
    model = wide(qwen3, intermediate_size=400)
    made = choose(model, random_scores(model), budget, kinds=kinds, round_to=STEP)
    before = [count(block) for block in find_blocks(model)[1]]
    slice_units(model, made.kept)
    channel = 3 * 64  # parameters: a row of gate and of up, a column of down
    for block, full, widths in zip(find_blocks(model)[1], before, made.widths, strict=True):
        assert abs(full - count(block) - budget * full) <= STEP / 2 * channel
        assert widths.channels % STEP == 0
        assert widths.query_heads % widths.kv_heads == 0


def test_both_kinds_lose_the_same_share_but_for_the_steps():
    model = wide(llama, intermediate_size=400)
    for widths in choose(model, random_scores(model), 0.5, round_to=STEP).widths:
        assert widths.kv_heads in (4, 3, 5)
        assert abs(widths.channels - 200) <= 400 / 16 + STEP
    for widths in choose(model, random_scores(model), 0.5, kinds=("head_groups", "channels"), round_to=1).widths:
        assert (widths.kv_heads, widths.query_heads, widths.channels) == (4, 8, 200)


def test_the_highest_scores_stay_and_of_equal_ones_the_first():
    model = llama()
    scores = random_scores(model)
    scores[1]["channels"] = torch.zeros(FFN).index_fill(0, torch.tensor([9, 40]), 1.0)
    made = choose_units(model, scores, {"channels": 0.75, "head_groups": 0.5}, round_to=1)
    assert made.kept[1]["channels"].tolist() == [*range(9), 9, *range(10, 15), 40]
    for block, kinds in made.kept.items():
        for kind, kept_U in kinds.items():
            others = set(range(len(scores[block][kind]))) - set(kept_U.tolist())
            assert scores[block][kind][kept_U].min() >= max(scores[block][kind][unit] for unit in others)


def test_every_group_keeps_as_many_query_heads_its_own_best():
    model = llama(num_attention_heads=8)
    scores = random_scores(model)
    scores[0]["query_heads"] = torch.tensor([9, 8, 7, 6, 0.4, 0.1, 0.3, 0.2])
    made = choose_units(model, scores, {"query_heads": 0.5})
    assert made.kept[0]["query_heads"].tolist() == [0, 1, 4, 6]
    assert {widths.query_heads for widths in made.widths} == {4}


@pytest.mark.parametrize("family", CUTTABLE)
@pytest.mark.parametrize("group", [0, 1])
def test_a_group_that_matters_stays(family, group):
    model = FAMILIES[family]()
    units, blocks = units_of(model), find_blocks(model)[1]
    with torch.no_grad():
        for of_block, block in zip(units, blocks, strict=True):
            heads = of_block.head_groups
            each = heads.columns_each
            block.get_submodule(heads.reader).weight[:, group * each : (group + 1) * each] *= 100
    made = choose_units(model, IMPORTANCES["weight_norm"]().score(model), {"head_groups": 0.5})
    assert all(group in made.kept[block.block]["head_groups"].tolist() for block in units)


def test_an_allocation_gives_each_block_its_own():
    model = llama()
    made = choose_units(model, random_scores(model), {"channels": [0.0, 0.25, 0.75]}, round_to=STEP)
    assert [widths.channels for widths in made.widths] == [FFN, 48, 16]
    assert made.kept.keys() == {1, 2}
    made = choose(model, random_scores(model), (0.0, 0.0, 0.3), round_to=STEP)
    assert made.kept.keys() == {2}
    assert choose(model, random_scores(model), 0).kept == {}


def test_a_head_group_goes_where_channels_go_in_larger_steps():
    model = wide(llama, intermediate_size=400)
    group, whole = 2 * 64 * 4 * 2 + 2 * 64 * 4, count(find_blocks(model)[1][0])
    made = choose(model, random_scores(model), group / whole, round_to=100)
    assert {(widths.kv_heads, widths.channels) for widths in made.widths} == {(7, 400)}


def test_a_block_that_lost_its_attention_spends_its_share_on_the_ffn():
    model = llama()
    slice_blocks(model, attention=[1])
    made = choose(model, random_scores(model), 0.4, round_to=1)
    before = [count(block) for block in find_blocks(model)[1]]
    slice_units(model, made.kept)
    after = [count(block) for block in find_blocks(model)[1]]
    assert made.parameters == count(model)
    assert [widths.kv_heads for widths in made.widths] == [1, 0, 1]
    assert [1 - now / then for now, then in zip(after, before, strict=True)] == pytest.approx([0.4] * 3, abs=0.01)
    assert choose_units(llama(), random_scores(llama()), {"head_groups": 0.5}).kept.keys() == {0, 1, 2}
    assert choose_units(model, random_scores(model), {"channels": [0, 0.5, 0]}, round_to=1).kept.keys() == {1}


def test_a_block_that_lost_all_loses_nothing_more():
    model = llama()
    slice_blocks(model, attention=[1], ffn=[1])
    made = choose(model, random_scores(model), 0.4, round_to=1)
    assert made.kept.keys() == {0, 2}
    slice_units(model, made.kept)
    assert made.parameters == count(model)


@pytest.mark.parametrize("kinds", [("head_groups", "channels"), ("channels", "query_heads")])
@pytest.mark.parametrize("budget", [0.1, 0.25, 1 / 3, 0.5])
def test_every_way_to_divide_a_budget_meets_it_within_half_a_step(kinds, budget):
    model = wide(qwen3, intermediate_size=400)
    scores = random_scores(model)
    made = choices(model, scores, budget, kinds=kinds, round_to=STEP)
    assert made[0].widths == choose(model, scores, budget, kinds=kinds, round_to=STEP).widths
    assert len({each.widths for each in made}) == len(made) >= 2
    heads = [each.widths[0].query_heads for each in made[1:]]
    assert heads == sorted(heads, reverse=True)
    channel = 3 * 64
    least = min(STEP * channel, 8 * 2 * 64 * 4)  # a step of channels, or a query head of each group
    for option in made:
        before = [count(block) for block in find_blocks(model)[1]]
        with slice_units(model, option.kept):
            assert option.parameters == count(model)
            for block, full in zip(find_blocks(model)[1], before, strict=True):
                assert abs(full - count(block) - budget * full) <= least / 2
    if budget * before[0] <= (400 - STEP) * channel:
        assert max(each.widths[0].query_heads for each in made) == 16  # channels alone can meet it


def test_of_many_ways_some_are_tried_from_the_fewest_heads_to_the_most():
    model = llama(num_attention_heads=32, num_key_value_heads=32, hidden_size=64, head_dim=2, intermediate_size=400)
    every = choices(model, random_scores(model), 0.2, round_to=1, most=100)
    some = choices(model, random_scores(model), 0.2, round_to=1, most=5)
    left = [each.widths[0].kv_heads for each in every[1:]] + [every[0].widths[0].kv_heads]
    tried = [each.widths[0].kv_heads for each in some]
    assert len(some) == 5
    assert tried[0] == every[0].widths[0].kv_heads
    assert (tried[1], tried[-1]) == (max(left), min(left)) == (32, tried[-1])
    gaps = [high - low for high, low in itertools.pairwise(tried[1:])]
    assert max(gaps) - min(gaps) <= 1


def test_a_block_that_cannot_lose_as_many_heads_loses_the_nearest_number():
    model = wide(llama, intermediate_size=400)
    slice_units(model, {1: {"head_groups": torch.arange(2)}})
    for option in choices(model, random_scores(model), 0.3, round_to=1)[1:]:
        gone = 8 - option.widths[0].kv_heads
        assert option.widths[1].kv_heads == 2 - min(gone, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m, s: choose(m, s, 0.01, round_to=32),
            r"^budget: 0.01 given for block 0, valid is 0\.\d+ to 0\.\d+; the least",
        ),
        (lambda m, s: choose(m, s, 0.99, round_to=32), "budget: 0.99 given for block 0"),
        (lambda m, s: choose(m, s, 1.0), "budget: 1.0 given, valid is 0 <= budget < 1"),
        (lambda m, s: choose(m, s, -0.1), "budget: -0.1 given"),
        (lambda m, s: choose(m, s, [0.2]), "budget: 1 shares given, the model has 3 blocks"),
        (lambda m, s: choose(m, s, 0.2, kinds=("channel",)), "kinds: channel given, valid is some of head_groups, qu"),
        (lambda m, s: choose(m, s, 0.2, kinds=()), "kinds: none given"),
        (lambda m, s: choose(m, s, 0.2, kinds=("head_groups", "query_heads")), "cut one, then the other"),
        (lambda m, s: choose(m, s, 0.2, round_to=65), "round_to: 65 given, valid is 1 to the 64 channels"),
        (
            lambda m, s: choose(m, s[:1] + [{}] * 2, 0.4, round_to=8),
            "scores: none given for the head_groups of block 1",
        ),
        (
            lambda m, s: choose_units(m, s, {"head_groups": 0.2}),
            "head_groups: 0.2 given for block 0, valid is 0.5; the least",
        ),
        (
            lambda m, s: choose_units(m, s, {"head_groups": 0.2}, round_to=16),
            "1 of 2 head_groups, 2 of 4 query_heads, 16",
        ),
        (
            lambda m, s: choose_units(m, s, {"channels": 0.2}),
            r"channels: 0.2 given for block 0, valid is none; the least to go",
        ),
    ],
)
def test_bad_input(call, message):
    model = llama()
    with pytest.raises(ValueError, match=message):
        call(model, random_scores(model))


def test_the_least_that_is_said_to_be_valid_is():
    model = llama()
    scores = random_scores(model)
    with pytest.raises(ValueError, match="valid is") as error:
        choose(model, scores, 0.01, round_to=32)
    least = float(str(error.value).split("valid is ")[1].split(" ")[0])
    assert choose(model, scores, least, round_to=32).removed > 0
    most = float(str(error.value).split(" to ")[1].split(";")[0])
    widths = choose(model, scores, most, round_to=32).widths[0]
    assert (widths.kv_heads, widths.channels) == (1, 32)


@pytest.mark.parametrize("model", [llama(), wide(qwen3, intermediate_size=2000)])
def test_half_a_step_beyond_the_ends_is_taken_and_no_more(model):
    scores = random_scores(model)
    head, channels = 1 / len(scores[0]["head_groups"]), len(scores[0]["channels"])
    for kind, step, round_to in (
        ("head_groups", head, 1),
        ("channels", 8 / channels, 8),
        ("channels", 1 / channels, 1),
    ):
        for share, left in ((0.51 * step, 1 - step), (1 - 0.51 * step, step)):
            [stay, *_] = choose_units(model, scores, {kind: share}, round_to=round_to).kept[0].values()
            assert len(stay) == round(left * len(scores[0][kind]))
        with pytest.raises(ValueError, match=r"valid is (?!0 )"):
            choose_units(model, scores, {kind: 0.5 * step}, round_to=round_to)
    with pytest.raises(ValueError, match="valid is"):
        choose_units(model, scores, {"head_groups": 1 - 0.49 * head})
    assert choose(model, scores, 0.0).kept == {}


def test_scores_that_are_not_numbers_or_of_another_model():
    model = llama()
    scores = random_scores(model)
    scores[2]["channels"][5] = float("nan")
    with pytest.raises(
        ValueError, match="NaN or infinity, given for the channels of block 2, valid is one for each of 64"
    ):
        choose(model, scores, 0.3, round_to=8)
    scores[2]["channels"] = torch.ones(63)
    with pytest.raises(ValueError, match=r"shape \(63,\)"):
        choose(model, scores, 0.3, round_to=8)


def test_a_family_without_the_unit_says_so():
    with pytest.raises(ValueError, match="query_heads given, block 0 of this opt has head_groups, channels"):
        choose(opt(), random_scores(opt()), 0.3, kinds=("query_heads",), round_to=8)
    with pytest.raises(ValueError, match="head_groups given, block 0 of this gpt_neox has channels"):
        choose(gpt_neox(), random_scores(gpt_neox()), 0.3, round_to=8)


@pytest.mark.parametrize("cost", ["parameters", "flops", "bytes"])
def test_a_family_with_fused_attention_gives_up_its_share_in_channels(cost):
    model = gpt_neox()
    meter, full = measured(model, cost)
    made = choose(model, random_scores(model), 0.3, cost=cost, kinds=("channels",), round_to=4)
    slice_units(model, made.kept)
    assert made.parameters == count(model)
    left = measured(model, cost)[1]
    assert left == [*made.widths]
    for before, after in zip(full, left, strict=True):
        gone = meter.of_block(before) - meter.of_block(after)
        assert abs(gone - 0.3 * meter.of_block(before)) <= 4 / 2 * meter.of_unit("channels", before)
