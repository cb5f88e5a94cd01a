"""What units cost, against formulas written out, and cuts that take a share of each cost."""

import pytest
import torch

from tasks.model.cost import sizes_of
from tasks.model.units import units_of
from tasks.prune.structure.budget import CONTEXT, COSTS, measured
from tasks.prune.structure.choose import choices, choose
from tasks.prune.structure.choose_depth import choose_depth
from tasks.prune.structure.cut import Cut, cut_model
from tasks.prune.structure.depth import slice_blocks
from tests.cases import FAMILIES, gemma3, llama, qwen3

CONTEXTS = 64  # of the cases
WIDE = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 4, "intermediate_size": 400}


def equal_scores(model):
    return [{kind: torch.zeros(units.count) for kind, units in block.kinds.items()} for block in units_of(model)]


def by_hand(cost, queries, keys, channels, tokens=CONTEXTS, width=32, head=4, attended=None):
    """A block of Llama in float32: heads, KV heads, channels; `attended` keys over all tokens."""
    weights = 2 * width * head * (queries + keys) + 3 * width * channels
    attended = tokens * (tokens + 1) // 2 if attended is None else attended
    return {
        "parameters": weights + 2 * width,
        "flops": 2 * (tokens * weights + attended * 2 * queries * head),
        "bytes": 4 * (weights + 2 * width),
        "kv": 4 * 2 * keys * head * tokens,
    }[cost]


@pytest.mark.parametrize("cost", COSTS)
def test_a_block_and_its_units_cost_what_the_formulas_say(cost):
    meter, [widths, *_] = measured(llama(**WIDE), cost)
    assert meter.tokens == CONTEXTS
    whole = by_hand(cost, 16, 8, 400)
    assert meter.of_block(widths) == whole
    assert meter.of_unit("channels", widths) == whole - by_hand(cost, 16, 8, 399)
    assert meter.of_unit("head_groups", widths) == whole - by_hand(cost, 14, 7, 400)
    assert meter.of_unit("query_heads", widths) == (whole - by_hand(cost, 8, 8, 400)) // 8


def test_the_context_is_the_models_own_but_no_longer_than_the_usual_one():
    assert measured(llama(max_position_embeddings=100), "kv")[0].tokens == 100
    assert measured(llama(max_position_embeddings=10**6), "kv")[0].tokens == CONTEXT == 2048


def test_a_sliding_window_costs_what_is_attended_and_held():
    meter, widths = measured(gemma3(), "kv")
    sliding, full = widths[:2]
    assert meter.of_block(full) == by_hand("kv", 4, 2, 0, head=8)
    assert meter.of_block(sliding) == by_hand("kv", 4, 2, 0, head=8, tokens=sliding.window - 1)
    meter, _ = measured(gemma3(), "flops")
    attended = sum(min(token, full.window or token) - min(token, sliding.window) for token in range(1, CONTEXTS + 1))
    assert meter.of_block(full) - meter.of_block(sliding) == 2 * attended * 2 * 4 * 8


@pytest.mark.parametrize("cost", ["flops", "bytes", "kv"])
@pytest.mark.parametrize("kinds", [("head_groups", "channels"), ("head_groups",)])
@pytest.mark.parametrize("budget", [0.2, 0.3])
def test_every_way_takes_the_share_of_the_cost_within_half_a_step(cost, kinds, budget):
    if kinds == ("head_groups",) and cost != "kv":
        budget /= 4  # heads are a small part of it
    model = qwen3(**WIDE)
    meter, full = measured(model, cost)
    step = meter.of_unit("head_groups", full[0])
    if cost != "kv" and "channels" in kinds:
        step = min(step, 8 * meter.of_unit("channels", full[0]))
    for option in choices(model, equal_scores(model), budget, cost=cost, kinds=kinds, round_to=8):
        for before, after in zip(full, option.widths, strict=True):
            gone = meter.of_block(before) - meter.of_block(after)
            assert gone > 0
            assert abs(gone - budget * meter.of_block(before)) <= step / 2
        assert cost != "kv" or {widths.channels for widths in option.widths} == {400}
        before, after = (sum(map(meter.of_block, widths)) for widths in (full, option.widths))
        assert option.removed == pytest.approx((before - after) / before)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "gpt_neox"])
def test_every_family_can_give_up_half_of_its_cache(family):
    model = FAMILIES[family]()
    dense = sum(measured(model, "kv")[0].of_block(widths) for widths in sizes_of(model)[1])
    cut_model(model, equal_scores(model), Cut(budget=0.5, cost="kv", repair=False, round_to=8), [])
    meter, left = measured(model, "kv")
    assert sum(map(meter.of_block, left)) == dense / 2


def test_bytes_choose_as_parameters_do():
    model = llama(**WIDE)
    chosen = [choose(model, equal_scores(model), 0.3, cost=cost, round_to=8) for cost in ("parameters", "bytes")]
    assert chosen[0].widths == chosen[1].widths
    assert chosen[0].removed == pytest.approx(chosen[1].removed)


def test_whole_blocks_go_by_what_they_cost():
    model = gemma3()  # sliding, full, sliding, full
    scores = [{"blocks": torch.tensor([value])} for value in (0.4, 0.1, 0.2, 0.3)]
    meter, widths = measured(model, "kv")
    sliding, full = (meter.of_block(each) for each in widths[:2])
    share = full / (2 * sliding + 2 * full)
    all_but_one = 1 - sliding / (2 * sliding + 2 * full)
    for budget, cost, gone in ((share, "kv", [1]), (0.5, "parameters", [1, 2]), (all_but_one, "kv", [1, 2, 3])):
        assert [piece.block for piece in choose_depth(model, scores, budget, cost=cost)] == gone


def test_a_block_that_lost_its_attention_has_no_cache_to_lose():
    model = llama(**WIDE)
    slice_blocks(model, attention=[1])
    made = choose(model, equal_scores(model), 0.5, cost="kv", round_to=8)
    assert [widths.kv_heads for widths in made.widths] == [4, 0, 4]
    assert made.removed == 0.5


def test_a_cost_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"^cost: watts given, valid is parameters, flops, bytes, kv$"):
        measured(llama(), "watts")
    with pytest.raises(ValueError, match=r"budget: 0\.3 given for block 0, valid is none"):
        choose(llama(), equal_scores(llama()), 0.3, cost="kv", kinds=("channels",), round_to=8)
