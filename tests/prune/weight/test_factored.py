"""Recipes with factors over whole models: of all linears or of some, beside zeros or alone."""

import copy

import pytest
import torch

from tasks.prune.packing import pattern_bytes
from tasks.prune.weight.apply import prune_blocks
from tasks.prune.weight.lowrank import LowRank
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import parse_pattern
from tasks.prune.weight.recipe import Recipe
from tasks.prune.weight.refit import Refit
from tasks.prune.weight.svd import SVD, ActivationSVD
from tasks.prune.weight.wanda import Wanda
from tests.cases import llama
from tests.prune.weight.recipes import IDS, pruned
from tests.prune.weight.test_apply import weights

CHOSEN = ("q_proj", "mlp.down_proj")


def test_low_rank_stores_what_stands_in_the_model():
    model = llama(hidden_size=64, intermediate_size=128)
    recipe = Recipe(pruner=Wanda(), pattern=parse_pattern("50%"), low_rank=LowRank(share=0.25, rounds=3))
    linears = [linear for _, of_block in prune_blocks(model, recipe, IDS) for linear in of_block]
    assert any(linear.row.rank for linear in linears)
    for linear in linears:
        weight_OI = model.get_parameter(linear.tensor)
        assert torch.equal(linear.factors.merged_OI(), weight_OI)
        assert linear.row.zeros == (linear.factors.sparse_OI == 0).sum()
        assert linear.factors.size_bytes <= pattern_bytes(parse_pattern("50%"), *weight_OI.shape, 4)


@pytest.mark.parametrize("kind", [SVD, ActivationSVD, LowRank])
def test_of_chosen_linears_factors_are_made_and_the_others_are_pruned(kind):
    dense = llama(hidden_size=64, intermediate_size=128)
    recipe = Recipe(pruner=Wanda(), pattern=parse_pattern("50%"), low_rank=kind(linears=CHOSEN))
    model = copy.deepcopy(dense)
    linears = [linear for _, of_block in prune_blocks(model, recipe, IDS) for linear in of_block]
    for linear in linears:
        size = linear.row.in_features * linear.row.out_features
        if linear.row.linear in ("self_attn.q_proj", "mlp.down_proj"):
            shape = model.get_parameter(linear.tensor).shape
            assert linear.row.rank == linear.factors.rank >= kind.alone
            assert linear.factors.size_bytes <= pattern_bytes(parse_pattern("50%"), *shape, 4)
            assert (linear.row.zeros == 0) is kind.alone
            assert torch.equal(model.get_parameter(linear.tensor), linear.factors.merged_OI())
        else:
            assert linear.row.rank is None
            assert linear.row.zeros == size // 2
    by_wanda, _ = pruned(dense, Wanda(), pattern=parse_pattern("50%"))
    first = "model.layers.0.self_attn.k_proj"  # seen before anything was changed
    assert torch.equal(weights(model)[first], weights(by_wanda)[first])


def test_without_a_pruner_the_others_stay_and_without_inputs_no_forward_runs():
    dense = llama(hidden_size=64, intermediate_size=128)
    recipe = Recipe(pruner=None, pattern=parse_pattern("0%"), low_rank=SVD(rank=6, linears=CHOSEN))
    assert not recipe.walks
    model = copy.deepcopy(dense)
    linears = [linear for _, of_block in prune_blocks(model, recipe, None) for linear in of_block]
    for linear in linears:
        weight_OI = model.get_parameter(linear.tensor)
        rank = torch.linalg.matrix_rank(weight_OI.double(), rtol=1e-5)
        chosen = linear.row.linear in ("self_attn.q_proj", "mlp.down_proj")
        assert linear.row.rank == (6 if chosen else None)
        assert (rank == 6) == chosen
        assert torch.equal(weight_OI, dense.get_parameter(linear.tensor)) != chosen


def test_an_update_is_of_the_linears_that_are_pruned():
    dense, fifty = llama(hidden_size=64, intermediate_size=128), parse_pattern("50%")
    model, rows = pruned(dense, Wanda(), pattern=fifty, update=Refit(), low_rank=SVD(linears=CHOSEN))
    assert all((row.damp is None) is (row.rank is not None) for row in rows)
    plain, _ = pruned(dense, Wanda(), pattern=fifty, low_rank=SVD(linears=CHOSEN))
    assert not torch.equal(*(weights(each)["model.layers.0.self_attn.k_proj"] for each in (model, plain)))


@pytest.mark.parametrize(
    ("low_rank", "pruner", "says"),
    [
        (
            SVD(rank=22, linears=("k_proj",)),
            Wanda(),
            r"rank: 22 given, .* valid is 1 to 21 \(block 0, self_attn.k_proj\)",
        ),
        (
            SVD(linears=("k_prj",)),
            Wanda(),
            "linears: 'k_prj' given, .* choose of q_proj, k_proj, v_proj, o_proj, gate_proj",
        ),
        (
            SVD(linears=("self_attn", "mlp")),
            Wanda(),
            r"linears: self_attn\+mlp given, which are all; leave linears out",
        ),
        (LowRank(share=0.01, linears=("up_proj",)), Wanda(), r"share: 0.01 given, .* \(block 0, mlp.up_proj\)"),
    ],
)
def test_what_does_not_fit_a_model_is_refused_before_any_work(low_rank, pruner, says):
    recipe = Recipe(pruner=pruner, pattern=parse_pattern("50%"), low_rank=low_rank)
    model = llama(hidden_size=64, intermediate_size=128)  # its keys and values are 32 wide: 64 · 32 / 96 is 21.3
    before = weights(copy.deepcopy(model))
    with pytest.raises(ValueError, match=says):
        prune_blocks(model, recipe, IDS)
    assert all(torch.equal(weight_OI, before[name]) for name, weight_OI in weights(model).items())


def test_a_pruned_model_is_not_factored():
    model, _ = pruned(llama(hidden_size=64, intermediate_size=128), Magnitude(), ids=None)
    recipe = Recipe(pruner=None, pattern=parse_pattern("50%"), low_rank=SVD())
    with pytest.raises(ValueError, match=r"block 0, self_attn.q_proj: weight: 50.0% of it is zero, .* the dense model"):
        list(prune_blocks(model, recipe, None))
