"""A cut as one value: what it refuses, which blocks go, and that trying it leaves the model as it was."""

import itertools
from dataclasses import replace

import pytest
import torch

from tasks.model.anatomy import find_blocks
from tasks.model.units import units_of
from tasks.prune.structure.choose_depth import OF_BLOCKS, choose_depth
from tasks.prune.structure.cut import Cut, best_form, check_cut, cut_model, passed_over
from tasks.prune.structure.depth import slice_blocks
from tasks.prune.structure.export import refusals_of
from tasks.prune.structure.rows import RemovalRow
from tasks.prune.structure.width import slice_units
from tests.cases import batches, llama


def scores_of(values: list[float]) -> list[dict]:
    return [{"blocks": torch.tensor([value])} for value in values]


def blocks_of(model, scores, budget: float) -> list[int]:
    return [piece.block for piece in choose_depth(model, scores, budget)]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"budget": 0.0}, "budget: 0 given"),
        ({"budget": 1.0}, "budget: 1 given"),
        ({"kinds": ()}, "units: none given"),
        ({"kinds": ("blocks", "channels")}, "units: blocks, channels given"),
        ({"kinds": ("attention", "channels")}, "units: attention, channels given, valid are some of head_groups"),
        ({"kinds": ("attention", "blocks")}, "; or blocks; or some of attention, ffn$"),
        ({"kinds": ("ffn", "ffn")}, "units: ffn, ffn given"),
        ({"kinds": ("channels", "channels")}, "units: channels, channels given"),
        ({"kinds": ("head_groups", "query_heads")}, "cut one, then the other"),
        ({"form": "onnx"}, "export: onnx given, valid is uniform, padded, per_layer"),
        ({"cost": "watts"}, "cost: watts given, valid is parameters, flops, bytes, kv"),
        ({"cost": "kv", "kinds": ("channels",)}, "cost: kv given for channels, valid is kv for head_groups, for blo"),
        (
            {"cost": "kv", "kinds": ("ffn",)},
            "cost: kv given for ffn, valid is kv for head_groups, for blocks, or for at",
        ),
        ({"cost": "kv", "kinds": ("query_heads", "channels")}, "cost: kv given for query_heads, channels"),
        (
            {"shares": (0.2, 0.3)},
            r"allocator: shares of a mean of 0\.25 given, valid is a mean of 0\.3, which is the b",
        ),
        ({"shares": ()}, "allocator: no shares given"),
        ({"shares": (-0.2, 0.8)}, r"allocator: a share of -0\.2 given, valid is 0 or more"),
        ({"shares": (0.3,), "kinds": ("blocks",)}, "allocator: shares of each block given, but whole blocks"),
        (
            {"left": ((0, 1),), "kinds": ("attention", "ffn")},
            "allocator: counts of units given beside shares or a cut in depth",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_is_said(fields: dict, says: str):
    with pytest.raises(ValueError, match=says):
        Cut(**{"budget": 0.3} | fields)


def test_the_blocks_of_the_lowest_scores_go_as_near_to_the_budget_as_can_be():
    model = llama(num_hidden_layers=5)
    values = [0.5, 0.1, 0.4, 0.2, 0.3]
    for budget in (0.2, 0.29, 0.31, 0.5 - 1e-6, 0.6, 0.8):
        count = min(range(1, 5), key=lambda gone: abs(gone / 5 - budget))
        lowest = min(itertools.combinations(range(5), count), key=lambda chosen: sum(values[index] for index in chosen))
        assert blocks_of(model, scores_of(values), budget) == list(lowest)
    for budget in (0.19, 0.81):
        with pytest.raises(ValueError, match=r"valid is 0\.2000 to 0\.8000"):
            blocks_of(model, scores_of(values), budget)


@pytest.mark.parametrize(
    "kinds", [("head_groups", "channels"), ("channels",), ("blocks",), ("attention",), ("attention", "ffn")]
)
def test_a_trial_changes_nothing(kinds: tuple[str, ...]):
    model = llama(num_hidden_layers=5)
    before = {name: (id(parameter), parameter.clone()) for name, parameter in model.named_parameters()}
    check_cut(model, Cut(budget=0.2, kinds=kinds, round_to=1))
    assert len(find_blocks(model)[1]) == model.config.num_hidden_layers == 5
    after = dict(model.named_parameters())
    assert {name: id(parameter) for name, parameter in after.items()} == {name: at for name, (at, _) in before.items()}
    assert all(torch.equal(after[name], values) for name, (_, values) in before.items())


def test_a_trial_refuses_what_the_model_does_not_allow():
    with pytest.raises(ValueError, match=r"budget: 0\.99 given for block 0"):
        check_cut(llama(), Cut(budget=0.99, round_to=1))
    with pytest.raises(ValueError, match=r"budget: 0\.9 given for whole blocks"):
        check_cut(llama(num_hidden_layers=2), Cut(budget=0.9, kinds=("blocks",)))


def test_each_block_gives_up_its_own_share():
    model = llama()
    cut = Cut(budget=0.3, shares=(0.0, 0.3, 0.6), kinds=("channels",), round_to=1, repair=False)
    check_cut(model, cut)
    with pytest.raises(ValueError, match=r"^allocator: 3 shares given, the model has 2 blocks$"):
        check_cut(llama(num_hidden_layers=2), cut)
    zeros = [{"channels": torch.zeros(64)} for _ in range(3)]
    rows = cut_model(model, zeros, cut, []).blocks
    gone = [1 - row.parameters / row.parameters_before for row in rows]
    assert gone == pytest.approx([0.0, 0.3, 0.6], abs=0.5 * 3 * 32 / rows[0].parameters_before)


def test_the_form_is_uniform_where_all_blocks_have_one_width_and_else_per_layer():
    model = llama(num_hidden_layers=2)
    assert best_form(refusals_of(model), None) == "uniform"
    assert passed_over(refusals_of(model), "uniform") is None
    with slice_units(model, {0: {"channels": torch.arange(3)}}):
        refusals = refusals_of(model)
        assert best_form(refusals, None) == "per_layer"
        assert best_form(refusals, "padded") == "padded"
        why = "block 0 has 4 query heads, 2 KV heads and 3 channels, block 1 4 query heads, 2 KV heads and 64 channels"
        assert passed_over(refusals, "per_layer") == f"uniform: {why}"
        with pytest.raises(
            ValueError, match=f"^export: uniform cannot express this cut: {why}; valid is padded, per_l"
        ):
            best_form(refusals, "uniform")


def test_where_no_form_is_left_each_says_why():
    refusals = {"uniform": "one", "padded": "two", "per_layer": "three"}
    with pytest.raises(ValueError, match=r"no form can express this cut: uniform: one; padded: two; per_layer: three$"):
        best_form(refusals, None)
    with pytest.raises(ValueError, match=r"^export: padded cannot express this cut: two; valid is none$"):
        best_form(refusals, "padded")


@pytest.mark.parametrize("cost", ["parameters", "flops", "bytes", "kv"])
@pytest.mark.parametrize("kinds", [("head_groups", "channels"), ("blocks",)])
def test_what_went_of_the_cost_is_that_of_the_model_that_is_left(kinds: tuple[str, ...], cost: str):
    model = llama(num_hidden_layers=4)
    scores = [
        {kind: torch.zeros(units.count) for kind, units in block.kinds.items()} | {"blocks": torch.zeros(1)}
        for block in units_of(model)
    ]
    blocks = [find_blocks(model)[1][index] for index in range(4)]
    whole = sum(parameter.numel() for block in blocks for parameter in block.parameters())
    made = cut_model(model, scores, Cut(budget=0.5, cost=cost, kinds=kinds, round_to=1, repair=False), [])
    left = sum(parameter.numel() for block in find_blocks(model)[1] for parameter in block.parameters())
    if cost != "kv":  # of which channels have none, so that they stay
        assert made.removed_flops == (made.removed if cost == "flops" else pytest.approx(0.5, abs=0.01))
    if cost in ("parameters", "bytes"):
        assert made.removed == pytest.approx(1 - left / whole)
    else:  # a half of all heads and channels, or of all blocks, is nearly or just the half of what they do
        assert made.removed == pytest.approx(0.5, abs=0 if cost == "kv" or kinds == ("blocks",) else 0.01)


def test_the_last_block_with_attention_stays_whatever_it_scores():
    model = llama(num_hidden_layers=4)
    slice_blocks(model, attention=[1, 3], ffn=[3])
    values = [0.1, 0.4, 0.2, 0.3]
    assert blocks_of(model, scores_of(values), 0.1) == [0]
    made = cut_model(model, scores_of(values), Cut(budget=0.6, kinds=OF_BLOCKS), [])
    assert [row.block for row in made.removals] == [0, 1, 3]
    assert blocks_of(llama(), scores_of([0.0, 0.0, 0.0]), 0.6) == [0, 1]


def test_a_block_without_attention_and_ffn_is_one_that_can_go():
    model = llama(num_hidden_layers=3)
    slice_blocks(model, attention=[1], ffn=[1])
    check_cut(model, Cut(budget=0.4, round_to=1))
    check_cut(model, Cut(budget=0.4, kinds=OF_BLOCKS))
    norms = 2 * model.config.hidden_size
    [gone] = cut_model(model, scores_of([0.3, 0.1, 0.2]), Cut(budget=0.01, kinds=OF_BLOCKS), []).removals
    assert (gone.block, gone.parameters, gone.score) == (1, norms, pytest.approx(0.1))


def test_a_cut_leaves_a_row_for_every_block_that_is_left_and_for_each_that_went_whole():
    model = llama(num_hidden_layers=3)
    each = sum(parameter.numel() for parameter in find_blocks(model)[1][0].parameters())
    made = cut_model(model, scores_of([0.3, 0.1, 0.2]), Cut(budget=0.3333, kinds=OF_BLOCKS), [])
    assert [(row.block, row.cut_error, row.parameters == row.parameters_before) for row in made.blocks] == [
        (0, None, True),
        (1, None, True),
    ]
    assert made.removals == (RemovalRow(block=1, kind="blocks", parameters=each, score=pytest.approx(0.1)),)
    assert made.splits == ()
    ids = list(batches((2, 12), (2, 12)))
    zeros = [{"channels": torch.zeros(row.channels_before)} for row in made.blocks]
    cut = Cut(budget=0.3, kinds=("channels",), round_to=1)
    seen = []
    made = cut_model(model, zeros, cut, ids, on_block=lambda row, slices: seen.append((row.block, len(slices))))
    assert seen == [(0, 1), (1, 1)]
    assert all(row.channels < row.channels_before and row.repaired_error is not None for row in made.blocks)
    assert (made.removals, made.splits) == ((), ())


def test_a_cut_goes_by_the_loss_of_the_ways_to_divide_it():
    model, ids = llama(), list(batches((2, 12), (2, 12)))
    zeros = [{kind: torch.zeros(units.count) for kind, units in block.kinds.items()} for block in units_of(model)]
    made = cut_model(model, zeros, Cut(budget=0.35, round_to=2), ids)
    assert {row.heads_removed for row in made.splits} == {0, 1}
    [chosen] = [row for row in made.splits if row.chosen]
    assert chosen.loss == min(row.loss for row in made.splits)
    assert chosen.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert {row.head_groups_before - row.head_groups for row in made.blocks} == {chosen.heads_removed}
    assert made.tables == {"slices": made.blocks, "removals": (), "splits": made.splits, "repairs": made.repairs}
    assert [row.share for row in made.repairs] == [1, 0.5, 0]


def test_a_budget_is_divided_only_in_ways_that_the_form_can_express():
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4}  # 6 of them do not divide a width of 32
    cut, ids = Cut(budget=0.3, round_to=1, repair=False), list(batches((2, 12), (2, 12)))
    groups = {}
    for form in (None, "uniform"):
        model = llama(**heads)
        check_cut(model, replace(cut, form=form))
        zeros = [{kind: torch.zeros(units.count) for kind, units in block.kinds.items()} for block in units_of(model)]
        made = cut_model(model, zeros, replace(cut, form=form), ids)
        groups[form] = {row.heads_removed for row in made.splits}
    assert groups == {None: {0, 1, 2, 3}, "uniform": {0, 2, 3}}
    assert "uniform" not in refusals_of(model)
    with pytest.raises(
        ValueError, match=r"^export: uniform cannot .* attention heads \(6\)\.; valid is padded, per_lay"
    ):
        check_cut(llama(**heads), Cut(budget=0.09, kinds=("head_groups",), form="uniform"))
