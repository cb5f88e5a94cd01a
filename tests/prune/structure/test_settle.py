"""A repair is kept as far as it lowers the loss of the model on what was held out."""

import math

import pytest
import torch

from tasks.model.anatomy import find_blocks
from tasks.model.units import units_of
from tasks.prune.structure.apply import slice_model
from tasks.prune.structure.settle import _best, settle
from tasks.prune.structure.width import slice_units
from tests.cases import FFN, batches, llama

IDS = batches((2, 24), (2, 24), (2, 24))
CPU = torch.device("cpu")
HALF = {index: {"channels": torch.arange(0, FFN, 2)} for index in range(3)}


def downs(model):
    return [block.mlp.down_proj for block in find_blocks(model)[1]]


@torch.no_grad()
def loss_of(model, batches_=IDS):
    """In float64, by the formula."""
    total, count = 0.0, 0
    for ids_BT in batches_:
        logits_BTV = model(ids_BT).logits.double().log_softmax(-1)
        total -= logits_BTV[:, :-1].gather(2, ids_BT[:, 1:, None]).sum().item()
        count += ids_BT[:, 1:].numel()
    return total / count


def repaired_towards(model, better):
    """Readers with their plain weights, and 'repairs' that raise or lower the loss: a step along its gradient."""
    readers = [(down, down.weight.detach().clone()) for down in downs(model)]
    for ids_BT in IDS:
        model(input_ids=ids_BT, labels=ids_BT).loss.backward()
    with torch.no_grad():
        for down, _ in readers:
            down.weight -= (0.5 if better else -0.5) * down.weight.grad
    return readers


@pytest.mark.parametrize(("better", "share"), [(True, 1.0), (False, 0.0)])
def test_the_share_of_the_lowest_loss_stays(better, share):
    model = llama()
    readers = repaired_towards(model, better)
    repaired = [down.weight.detach().clone() for down in downs(model)]
    rows = settle(model, readers, IDS, CPU)
    assert [row.share for row in rows] == [1.0, 0.5, 0.0]
    assert [row.chosen for row in rows] == [row.share == share for row in rows]
    kept = repaired if better else [plain for _, plain in readers]
    assert all(torch.equal(down.weight, weight) for down, weight in zip(downs(model), kept, strict=True))
    assert min(row.loss for row in rows) == pytest.approx(loss_of(model), rel=1e-5)


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([[2.0, 3.0], [1.9, 2.9], [4.0, 4.0]], 1),  # lower in each window by as much
        ([[2.0, 3.0], [1.8, 3.1], [4.0, 4.0]], 0),  # lower by 0.05 on average, give or take 0.30
        ([[2.0, 3.0], [1.9, 2.9], [1.0, 2.0]], 2),
        ([[2.0], [2.0], [2.0]], 0),
        ([[math.nan, 1.0], [5.0, 5.0], [4.0, 4.0]], 2),
        ([[2.0, 2.0], [math.nan, 1.0], [3.0, 3.0]], 0),
    ],
)
def test_less_than_all_of_a_repair_has_to_be_clearly_better(losses, best):
    assert _best(losses) == best


def test_half_of_a_repair_is_half_of_the_way():
    model = llama()
    readers = repaired_towards(model, better=True)
    with torch.no_grad():
        for down, plain in readers:  # twice as far: so the loss is measured where the good step ended
            down.weight.copy_(plain + 2 * (down.weight - plain))
    half = {row.share: row.loss for row in settle(model, readers, IDS, CPU)}[0.5]
    other = llama()
    repaired_towards(other, better=True)
    assert half == pytest.approx(loss_of(other), rel=1e-5)


def test_the_loss_of_the_plain_cut_is_told():
    plain, model, told = llama(), llama(), []
    slice_units(plain, HALF)
    slice_model(model, HALF, IDS, on_settled=told.extend)
    [at_0] = [row.loss for row in told if row.share == 0]
    assert at_0 == pytest.approx(loss_of(plain, IDS[-1:]), rel=1e-5)


def test_unsettled_the_repair_stays_whatever_it_does():
    made = {}
    for settled in (True, False):
        model, told = llama(), []
        slice_model(model, HALF, IDS, settled=settled, on_settled=told.extend)
        made[settled] = ([down.weight.detach() for down in downs(model)], told)
    assert made[False][1] == []
    assert len(made[True][1]) == 3
    [kept] = [row.share for row in made[True][1] if row.chosen]
    same = all(torch.equal(*each) for each in zip(made[True][0], made[False][0], strict=True))
    assert same == (kept == 1)


def test_where_nothing_was_repaired_there_is_nothing_to_settle():
    model, told = llama(), []
    every = {block.block: {"channels": torch.arange(FFN)} for block in units_of(model)}
    slice_model(model, every, IDS, on_settled=told.extend)
    assert told == []
    assert settle(model, [], IDS, CPU) == []
