"""Blocks that are tuned towards the dense model: never worse, and the zeros stay."""

import copy

import pytest
import torch

from tasks.prune.weight.apply import prune_model
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.reconstruct import Reconstruct
from tasks.prune.weight.sparsegpt import SparseGPT
from tasks.prune.weight.wanda import Wanda
from tests.cases import WINDOW, batches, llama, opt
from tests.prune.weight.recipes import IDS, TWO_OF_FOUR, pruned
from tests.prune.weight.test_apply import weights


@pytest.mark.parametrize("order", ["block", "group"])
@pytest.mark.parametrize("make", [llama, opt])
def test_a_tuned_block_is_nearer_to_the_dense_model_and_has_the_same_zeros(make, order):
    dense = make()
    settings = Reconstruct(epochs=4)
    plain, _ = pruned(dense, SparseGPT(), order=order)
    model, blocks = copy.deepcopy(dense), []
    prune_model(
        model,
        SparseGPT(),
        TWO_OF_FOUR,
        IDS,
        reconstruct=settings,
        order=order,
        on_block=lambda block, rows: blocks.append(block),
    )
    assert all(((weight_OI.reshape(-1, 4) != 0).sum(1) <= 2).all() for weight_OI in weights(model).values())
    assert all(block.tuned_to <= block.tuned_from and block.tuned_steps > 0 for block in blocks)
    assert blocks[0].tuned_to < blocks[0].tuned_from
    first = [name for name in weights(plain) if ".0." in name]
    assert all(torch.equal(weights(plain)[name] == 0, weights(model)[name] == 0) for name in first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tuning_never_makes_a_block_worse_and_repeats_bit_for_bit(dtype):
    dense = llama().to(dtype)
    settings = Reconstruct(epochs=3, rate=10.0, patience=1)  # far too fast: every epoch is worse
    plain, _ = pruned(dense, Wanda())
    model, _ = pruned(dense, Wanda(), reconstruct=settings)
    for name, weight_OI in weights(plain).items():
        assert torch.equal(weight_OI, weights(model)[name])
    sane = Reconstruct(epochs=2)
    one, other = (pruned(dense, Wanda(), reconstruct=sane)[0] for _ in range(2))
    for (name, parameter), twin in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(parameter, twin), name
        assert parameter.dtype == dtype
        assert parameter.grad is None


def test_magnitude_can_be_tuned_though_it_observes_nothing():
    _, rows = pruned(llama(), Magnitude(), reconstruct=Reconstruct(epochs=2))
    assert all(row.error is None for row in rows)


def test_blending_reads_the_dense_stream_and_the_first_block_has_none():
    """Before the first block both streams are one, so what is drawn there changes nothing."""
    dense = llama()
    plain, blended = (pruned(dense, Wanda(), reconstruct=Reconstruct(epochs=1, blend=blend))[0] for blend in (0.0, 1.0))
    same = {name: torch.equal(weight_OI, weights(blended)[name]) for name, weight_OI in weights(plain).items()}
    assert not any(same[name] for name in same if ".1." in name)


def test_one_batch_cannot_be_tuned_on():
    with pytest.raises(ValueError, match="reconstruct: one calibration batch"):
        pruned(llama(), Wanda(), ids=batches((3, WINDOW)), reconstruct=Reconstruct())


@pytest.mark.parametrize("name", ["epochs", "rate", "held_out", "patience", "blend"])
def test_values_of_the_tuning_are_checked(name):
    with pytest.raises(ValueError, match=f"^{name}: .* valid is"):
        Reconstruct(**{name: -1})
