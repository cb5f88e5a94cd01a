"""Orders of inputs beside a checkpoint: stored, packed with the weights, and undone on the way back."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tasks.prune.orders import read_orders, write_orders
from tasks.prune.pack import pack_checkpoint, read_packed
from tasks.prune.weight.apply import prune_blocks
from tasks.prune.weight.pattern import parse_pattern
from tasks.prune.weight.recipe import Recipe
from tasks.prune.weight.wanda import Wanda
from tests.cases import WINDOW, batches, llama

TWO_OF_FOUR = parse_pattern("2:4")


@pytest.fixture
def permuted(tmp_path):
    """A folder with a checkpoint that was permuted and pruned, its model, and its orders."""
    model = llama(hidden_size=64, intermediate_size=128)
    recipe = Recipe(pruner=Wanda(), pattern=TWO_OF_FOUR, permute=True)
    walked = [linear for _, of_block in prune_blocks(model, recipe, batches((3, WINDOW))) for linear in of_block]
    orders = {linear.tensor: linear.order_I for linear in walked if linear.order_I is not None}
    folder = tmp_path / "checkpoint"
    model.save_pretrained(folder)
    write_orders(folder, orders)
    return folder, model, orders, [linear.tensor for linear in walked]


def test_orders_come_back(permuted):
    folder, model, orders, _ = permuted
    found = read_orders(folder, dict(model.named_parameters()))
    assert found.keys() == orders.keys()
    assert all(torch.equal(found[name].long(), orders[name]) for name in orders)


def test_every_pruned_linear_is_packed_as_2_of_4_and_comes_back_bit_for_bit(permuted, tmp_path):
    folder, model, orders, tensors = permuted
    target = tmp_path / "packed"
    summary = pack_checkpoint(folder, target, dict.fromkeys(tensors, TWO_OF_FOUR))
    assert {row.name for row in summary.tensors if row.format == "nm"} == set(tensors)
    assert set(orders) < set(tensors)  # some are folded
    state = model.state_dict()
    assert all(torch.equal(weight, state[name]) for name, weight in read_packed(target))


def test_without_its_order_a_permuted_weight_is_refused_as_2_of_4(permuted, tmp_path):
    folder, _, _, tensors = permuted
    (folder / "orders-00001.safetensors").unlink()
    with pytest.raises(ValueError, match="2:4"):
        pack_checkpoint(folder, tmp_path / "packed", dict.fromkeys(tensors, TWO_OF_FOUR))


def test_nothing_is_written_without_orders(tmp_path):
    write_orders(tmp_path, {})
    assert not list(tmp_path.iterdir())
    assert read_orders(tmp_path, ()) == {}


@pytest.mark.parametrize(
    ("order", "says"), [([0, 1, 1, 3], "no order of 4 inputs"), ([1, 2, 3, 4], "no order of 4 inputs")]
)
def test_what_is_no_order_is_refused(tmp_path, order, says):
    save_file({"a.weight": torch.tensor(order, dtype=torch.int32)}, tmp_path / "orders-00001.safetensors")
    with pytest.raises(ValueError, match=says):
        read_orders(tmp_path, ["a.weight"])
    with pytest.raises(ValueError, match=r"holds a\.weight, which the checkpoint has not"):
        read_orders(tmp_path, ["b.weight"])


def test_a_torn_file_is_refused(tmp_path):
    (tmp_path / "orders-00001.safetensors").write_bytes(json.dumps({}).encode())
    with pytest.raises(ValueError, match="damaged"):
        read_orders(tmp_path, [])
