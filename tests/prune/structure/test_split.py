"""Dividing a budget by what it costs: the losses against models that were really cut, and who wins."""

import copy

import pytest
import torch
from torch import nn

from tasks.model.anatomy import find_blocks
from tasks.model.units import units_of
from tasks.prune.structure.apply import slice_model
from tasks.prune.structure.choose import choices, choose
from tasks.prune.structure.depth import slice_blocks
from tasks.prune.structure.masked_loss import WINDOWS
from tasks.prune.structure.split import choose_split
from tasks.prune.structure.width import slice_units
from tests.cases import FAMILIES, batches, llama

CUTTABLE = [family for family in FAMILIES if family != "gpt_neox"]
KINDS = [(family, "head_groups") for family in CUTTABLE] + [("llama", "query_heads"), ("qwen3", "query_heads")]
BUDGET = {"round_to": 2, "kinds": ("head_groups", "channels")}
HEADS = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 4, "hidden_size": 64}


def random_scores(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        {kind: torch.rand(units.count, generator=generator) for kind, units in block.kinds.items()}
        for block in units_of(model)
    ]


@torch.no_grad()
def loss(model, ids):
    """Nats per token, by the definition, in float64."""
    total = count = 0
    for ids_BT in ids:
        logits_BTV = model(ids_BT).logits[:, :-1].double()
        total += nn.functional.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="sum").item()
        count += ids_BT[:, 1:].numel()
    return total / count


@pytest.mark.parametrize(("family", "heads"), KINDS)
def test_the_lowest_loss_of_models_that_are_really_cut_so_is_taken(family, heads):
    model, ids = FAMILIES[family](), batches((3, 24), (2, 20))
    scores, kinds = random_scores(model), (heads, "channels")
    taken, rows = choose_split(model, scores, 0.35, ids, kinds=kinds, round_to=2)
    losses = []
    for option in choices(model, scores, 0.35, kinds=kinds, round_to=2):
        with slice_units(model, option.kept):
            losses.append(loss(model, ids))
            assert rows[len(losses) - 1].parameters == sum(each.numel() for each in model.parameters())
    assert len(rows) == len(losses) >= 2
    assert [row.loss for row in rows] == pytest.approx(losses, abs=1e-5)
    best = losses.index(min(losses))
    assert [row.split for row in rows if row.chosen] == [best]
    assert [(row.split, row.kind) for row in rows] == [(number, heads) for number in range(len(rows))]
    with slice_units(model, taken.kept):
        assert loss(model, ids) == pytest.approx(rows[best].loss, abs=1e-5)


@pytest.mark.parametrize("worthless", ["self_attn.o_proj", "mlp.down_proj"])
def test_what_the_model_does_not_need_goes(worthless):
    model = llama(**HEADS, intermediate_size=400)
    with torch.no_grad():
        model.lm_head.weight *= 30  # so sure of its own words that any change costs
        for block in find_blocks(model)[1]:
            block.get_submodule(worthless).weight.zero_()
    torch.manual_seed(0)
    ids = [model.generate(batches((4, 2))[0], do_sample=True, top_k=0, max_new_tokens=40, min_new_tokens=40)]
    group = (2 + 1 + 1 + 2) * 4 * 64  # rows of q, k and v, columns of o
    six_groups = 6 * group / sum(parameter.numel() for parameter in find_blocks(model)[1][0].parameters())
    _, rows = choose_split(model, random_scores(model), six_groups, ids, **BUDGET)
    [chosen] = [row for row in rows if row.chosen]
    needed = "channels_removed" if worthless == "self_attn.o_proj" else "heads_removed"
    assert getattr(chosen, needed) == min(getattr(row, needed) for row in rows) == 0
    assert chosen.loss == pytest.approx(loss(model, ids), abs=1e-5)
    assert chosen.loss < min(row.loss for row in rows if row is not chosen)


def test_a_row_says_what_goes():
    model = llama(**HEADS, intermediate_size=400)
    scores = random_scores(model)
    _, rows = choose_split(model, scores, 0.3, batches(), **BUDGET)
    for row, option in zip(rows, choices(model, scores, 0.3, **BUDGET), strict=True):
        assert row.heads_removed == 8 - option.widths[0].kv_heads
        assert row.channels_removed == pytest.approx(1 - option.widths[0].channels / 400)
    assert rows[0].parameters == choose(model, scores, 0.3, **BUDGET).parameters


def test_where_a_repair_follows_the_two_lowest_are_tried_with_it():
    model, ids = llama(**HEADS, intermediate_size=400), batches(*[(2, 24)] * 8)
    before = {name: (parameter.data_ptr(), parameter.clone()) for name, parameter in model.named_parameters()}
    scores = random_scores(model)
    taken, rows = choose_split(model, scores, 0.3, ids, **BUDGET, repair=True)
    assert all(parameter.data_ptr() == before[name][0] for name, parameter in model.named_parameters())
    assert all(torch.equal(parameter, before[name][1]) for name, parameter in model.named_parameters())
    tried = sorted(rows, key=lambda row: row.loss)[:2]
    assert {row.split for row in rows if row.repaired_loss is not None} == {row.split for row in tried}
    options = choices(model, scores, 0.3, **BUDGET)
    for row in tried:
        other = copy.deepcopy(model)
        slice_model(other, options[row.split].kept, ids[1::2])
        assert row.repaired_loss == pytest.approx(loss(other, ids[::2]), abs=1e-5)
    best = min(tried, key=lambda row: row.repaired_loss)
    assert [row.split for row in rows if row.chosen] == [best.split]
    assert taken.widths == options[best.split].widths


@pytest.mark.parametrize("windows", [16, 32])
def test_of_four_large_batches_two_are_left_to_repair_on(windows):
    _, rows = choose_split(llama(), random_scores(llama()), 0.35, batches(*[(windows, 8)] * 4), **BUDGET, repair=True)
    assert sum(row.repaired_loss is not None for row in rows) == 2


def test_of_few_batches_none_are_left_to_repair_on():
    model, ids = llama(), batches((4, 24), (4, 24), (4, 24))
    _, rows = choose_split(model, random_scores(model), 0.35, ids, **BUDGET, repair=True)
    assert {row.repaired_loss for row in rows} == {None}
    assert [row.loss for row in rows if row.chosen] == [min(row.loss for row in rows)]


def test_without_windows_or_another_way_it_goes_by_size():
    model = llama()
    scores = random_scores(model)
    for given, kinds in (([], ("head_groups", "channels")), (batches(), ("channels",))):
        taken, rows = choose_split(model, scores, 0.35, given, kinds=kinds, round_to=2)
        assert rows == []
        assert taken.widths == choose(model, scores, 0.35, kinds=kinds, round_to=2).widths


def test_the_model_stays_as_it_is():
    model = llama().train()
    before = {name: (parameter.data_ptr(), parameter.clone()) for name, parameter in model.named_parameters()}
    choose_split(model, random_scores(model), 0.35, batches(), **BUDGET)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
    for name, parameter in model.named_parameters():
        assert (parameter.data_ptr(), parameter.grad) == (before[name][0], None)
        assert torch.equal(parameter, before[name][1])


def test_a_block_that_lost_its_attention_gives_channels_in_every_way():
    model = llama()
    slice_blocks(model, attention=[1])
    _, rows = choose_split(model, random_scores(model), 0.35, batches(), **BUDGET)
    assert sorted(row.heads_removed for row in rows) == pytest.approx([0, 2 / 3])


def test_of_many_windows_every_third_or_so_is_read():
    model, ids = llama(), batches(*[(1, 8)] * 3 * WINDOWS)
    _, rows = choose_split(model, random_scores(model), 0.35, ids, **BUDGET)
    expected = []
    for option in choices(model, random_scores(model), 0.35, **BUDGET):
        with slice_units(model, option.kept):
            expected.append(loss(model, ids[::3]))
    assert [row.loss for row in rows] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("ids", [torch.ones(2, 8), torch.ones(8, dtype=torch.long), torch.ones(3, 1, dtype=torch.long)])
def test_batches_that_have_no_loss(ids):
    with pytest.raises(ValueError, match=r"batches: torch\.\w+ of shape .* given, valid are ids of shape \(windows, 2"):
        choose_split(llama(), random_scores(llama()), 0.35, [ids], **BUDGET)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_is_measured_on_a_gpu_and_back_again():
    model = llama()
    _, expected = choose_split(model, random_scores(model), 0.35, batches(), **BUDGET)
    _, rows = choose_split(model, random_scores(model), 0.35, batches(), **BUDGET, device="cuda")
    assert [row.loss for row in rows] == pytest.approx([row.loss for row in expected], abs=1e-4)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
