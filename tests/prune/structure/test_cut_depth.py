"""Attentions and FFNs that go whole, by their scores: which, what is left, what it cost, and its rows."""

import itertools

import pytest
import torch

from tasks.calibrate.importance.influence import Influence
from tasks.calibrate.importance.leave_one_out import LeaveOneOut
from tasks.model.anatomy import find_blocks
from tasks.model.units import units_of
from tasks.prune.structure.budget import measured
from tasks.prune.structure.choose_depth import choose_depth, slice_depth
from tasks.prune.structure.cut import Cut, check_cut, cut_model
from tasks.prune.structure.depth import slice_blocks
from tests.cases import FAMILIES, batches, gpt_neox, llama, opt

ATTENTION, FFN, BOTH = ("attention",), ("ffn",), ("attention", "ffn")
IDS = batches((2, 12))[0]
SCORES = {"attention": [0.5, 0.1, 0.4, 0.2], "ffn": [0.3, 0.6, 0.15, 0.7]}


def scores_of(attention, ffn):
    return [
        {"attention": torch.tensor([a], dtype=torch.float64), "ffn": torch.tensor([f], dtype=torch.float64)}
        for a, f in zip(attention, ffn, strict=True)
    ]


def sizes_of_parts(model):
    """Counted: what a block loses by the part."""
    sizes = {}
    for block, of_block in enumerate(find_blocks(model)[1]):
        whole = sum(parameter.numel() for parameter in of_block.parameters())
        for kind in BOTH:
            with slice_blocks(model, **{kind: [block]}):
                sizes[block, kind] = whole - sum(parameter.numel() for parameter in of_block.parameters())
    return sizes


@torch.no_grad()
def logits(model):
    return model(IDS).logits


@pytest.mark.parametrize("kinds", [ATTENTION, FFN, BOTH])
def test_the_lowest_scores_go_as_near_to_the_budget_as_can_be(kinds):
    model = llama(num_hidden_layers=4)
    sizes, every = sizes_of_parts(model), scores_of(**SCORES)
    whole = sum(parameter.numel() for block in find_blocks(model)[1] for parameter in block.parameters())
    order = sorted((SCORES[kind][block], block, kind) for kind in kinds for block in range(4))
    staying = next((each for each in reversed(order) if each[2] == "attention"), order[-1])
    order.remove(staying)
    gone = list(itertools.accumulate(sizes[block, kind] for _, block, kind in order))
    for count, size in enumerate(gone, start=1):
        for budget in (size / whole, (size + (50 if count < len(gone) else -50)) / whole):
            found = choose_depth(model, every, budget, kinds=kinds)
            assert {(piece.score, piece.block, piece.kind) for piece in found} == {*order[:count]}
            assert sum(piece.parameters for piece in found) == sum(piece.cost for piece in found) == size
    least, most = min(size for (_, kind), size in sizes.items() if kind in kinds) / whole, gone[-1] / whole
    valid = f"{' and '.join(kinds)}, valid is {least:.4f} to {most:.4f}$"
    for budget in (least - 1e-3, most + 1e-3):
        with pytest.raises(ValueError, match=f"^budget: {budget:g} given for {valid}"):
            choose_depth(model, every, budget, kinds=kinds)


@pytest.mark.parametrize("cost", ["parameters", "flops", "bytes", "kv"])
def test_what_went_is_counted_on_the_model_that_is_left(cost):
    model = llama(num_hidden_layers=4)
    meter, widths = measured(model, cost)
    dense = sum(map(meter.of_block, widths))
    made = cut_model(model, scores_of(**SCORES), Cut(budget=0.25, cost=cost, kinds=BOTH), [])
    left = [sum(parameter.numel() for parameter in block.parameters()) for block in find_blocks(model)[1]]
    assert [row.parameters for row in made.blocks] == left
    meter, widths = measured(model, cost)
    assert made.removed == pytest.approx(1 - sum(map(meter.of_block, widths)) / dense)
    if cost == "flops":
        assert made.removed_flops == made.removed
    else:
        assert 0 < made.removed_flops < 1
    if cost == "kv":  # of which no FFN has any, so that none goes for nothing
        assert {row.kind for row in made.removals} == {"attention"}
        assert made.removed == 0.25


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_is_the_model_in_which_these_add_nothing(family):
    model, silent = FAMILIES[family](), FAMILIES[family]()
    scores = LeaveOneOut(kinds=BOTH).score(model, [IDS])
    made = cut_model(model, scores, Cut(budget=0.3, kinds=BOTH), [])
    assert {row.score for row in made.removals} < {score.item() for each in scores for score in each.values()}
    units, blocks = units_of(silent), find_blocks(silent)[1]
    with torch.no_grad():
        for row in made.removals:
            for parameter in blocks[row.block].get_submodule(units[row.block].parts[row.kind]).parameters():
                parameter.zero_()
    torch.testing.assert_close(logits(model), logits(silent), rtol=0, atol=1e-5)
    how = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    expected = silent.generate(IDS, use_cache=False, **how)
    assert torch.equal(model.generate(IDS, use_cache=False, **how), expected)
    assert torch.equal(model.generate(IDS, use_cache=True, **how), expected)
    assert sum(row.parameters for row in made.removals) == sum(
        parameter.numel() for parameter in silent.parameters()
    ) - sum(parameter.numel() for parameter in model.parameters())


def test_nothing_that_goes_is_the_identity_and_a_cut_can_be_undone():
    model = llama()
    before, modules, config = logits(model), list(model.named_modules()), model.config.to_dict()
    for pieces in ([], choose_depth(model, Influence().score(model, [IDS]), 0.3, kinds=BOTH)):
        with slice_depth(model, pieces):
            assert torch.equal(logits(model), before) == (not pieces)
        assert torch.equal(logits(model), before)
        assert list(model.named_modules()) == modules
        assert model.config.to_dict() == config


def test_the_rows_say_what_each_block_had_and_what_went():
    model = llama(num_hidden_layers=4)
    sizes = sizes_of_parts(model)
    made = cut_model(model, scores_of(**SCORES), Cut(budget=0.25, kinds=BOTH), [])
    assert [(row.block, row.kind, row.score) for row in made.removals] == [
        (1, "attention", 0.1),
        (2, "ffn", 0.15),
    ]
    assert [row.parameters for row in made.removals] == [sizes[1, "attention"], sizes[2, "ffn"]]
    for block, row in enumerate(made.blocks):
        gone = [kind for kind in BOTH if (block, kind) in {(1, "attention"), (2, "ffn")}]
        assert (row.head_groups_before, row.query_heads_before, row.channels_before) == (2, 4, 64)
        assert (row.head_groups, row.query_heads) == ((None, None) if "attention" in gone else (2, 4))
        assert row.channels == (None if "ffn" in gone else 64)
        assert row.parameters_before - row.parameters == sum(sizes[block, kind] for kind in gone)


@pytest.mark.parametrize(
    ("make", "cut", "says"),
    [
        (llama, Cut(budget=0.4, kinds=ATTENTION), r"^budget: 0\.4 given for attention, valid is 0\.1103 to 0\.2207$"),
        (llama, Cut(budget=0.01, kinds=FFN), r"^budget: 0\.01 given for ffn, valid is 0\.2\d{3} to 0\.4\d{3}$"),
        (llama, Cut(budget=0.2, kinds=ATTENTION, form="uniform"), "block 0 has no attention; valid is padded, per_lay"),
        (llama, Cut(budget=0.3, kinds=FFN, form="uniform"), "block 0 has no mlp; valid is padded, per_layer$"),
        (opt, Cut(budget=0.4, kinds=BOTH, form="uniform"), "block 0 has no attention"),
        (gpt_neox, Cut(budget=0.2, kinds=ATTENTION, form="padded"), "valid is per_layer$"),
    ],
)
def test_what_cannot_be_met_or_written_is_one_line(make, cut, says):
    with pytest.raises(ValueError, match=says):
        check_cut(make(), cut)


def test_what_a_model_has_lost_cannot_go_again():
    model = llama()
    slice_blocks(model, ffn=[0, 1, 2])
    with pytest.raises(ValueError, match=r"^units: ffn given, block 0 of this llama has head_groups, .*attention, the"):
        check_cut(model, Cut(budget=0.3, kinds=FFN))
    slice_blocks(model, attention=[0, 1])
    with pytest.raises(
        ValueError, match=r"^budget: 0\.3 given for attention, valid is none, as there is one attention$"
    ):
        check_cut(model, Cut(budget=0.3, kinds=ATTENTION))
