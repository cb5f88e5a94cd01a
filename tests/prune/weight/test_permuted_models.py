"""Whole models whose linears are n of m in an order of their own."""

import copy

import pytest
import torch

from tasks.prune.weight.apply import prune_blocks
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.recipe import Recipe
from tasks.prune.weight.reconstruct import Reconstruct
from tasks.prune.weight.refit import Refit
from tasks.prune.weight.sparsegpt import SparseGPT
from tasks.prune.weight.wanda import Wanda
from tests.cases import FAMILIES, llama, opt
from tests.prune.weight.recipes import IDS, TWO_OF_FOUR, pruned
from tests.prune.weight.test_apply import weights


class KeepsAll(Wanda):
    """Scores like Wanda, and drops nothing."""

    def _prune(self, weight_OI, stat, pattern):
        return weight_OI.clone(), torch.ones_like(weight_OI, dtype=torch.bool)

    def surplus(self, pruned_OI, pattern):
        """So many are allowed here."""
        return 0


@pytest.mark.parametrize("order", ["block", "group"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_permuted_is_n_of_m_in_its_order_and_keeps_more(family, order):
    dense = FAMILIES[family]()
    model = copy.deepcopy(dense)
    recipe = Recipe(pruner=Wanda(), pattern=TWO_OF_FOUR, permute=True, order=order)
    linears = [linear for _, of_block in prune_blocks(model, recipe, IDS) for linear in of_block]
    found = weights(model)
    orders = {linear.tensor.removesuffix(".weight"): linear.order_I for linear in linears}
    assert orders.keys() == found.keys()
    for name, weight_OI in found.items():
        stored_OI = weight_OI if orders[name] is None else weight_OI[:, orders[name]]
        assert ((stored_OI.reshape(-1, 4) != 0).sum(1) == 2).all(), name
    assert {linear.row.order for linear in linears} >= {"gather"}
    if family not in ("gpt_neox",):
        assert any(linear.row.order == "folded" for linear in linears)
    _, rows = pruned(dense, Wanda(), order=order)
    first = [linear.row for linear in linears if linear.row.block == 0]
    assert sum(row.error for row in first) < sum(row.error for row in rows if row.block == 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_permuting_and_dropping_nothing_leaves_the_logits(family):
    """The orders are those of 2:4, but the pruner keeps all."""
    dense = FAMILIES[family]().double()
    model, rows = pruned(dense, KeepsAll(), permute=True)
    assert any(row.order for row in rows)
    with torch.no_grad():
        torch.testing.assert_close(model(IDS[0]).logits, dense(IDS[0]).logits, rtol=0, atol=1e-9)


@pytest.mark.parametrize("make", [llama, opt])
def test_every_pruner_and_update_can_be_permuted(make):
    for pruner, options in (
        (Magnitude(), {}),
        (SparseGPT(), {"update": Refit(drift=0.5), "order": "group"}),
        (SparseGPT(), {"reconstruct": Reconstruct(epochs=1)}),
    ):
        recipe = Recipe(pruner=pruner, pattern=TWO_OF_FOUR, permute=True, **options)
        model = make()
        for _, linears in prune_blocks(model, recipe, IDS):
            for linear in linears:
                weight_OI = model.get_parameter(linear.tensor)
                stored_OI = weight_OI if linear.order_I is None else weight_OI[:, linear.order_I]
                assert ((stored_OI.reshape(-1, 4) != 0).sum(1) <= 2).all(), (recipe, linear.tensor)
