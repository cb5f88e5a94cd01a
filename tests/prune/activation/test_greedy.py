"""TEAL's division of a block: the asked share of its weights, less of what hurts more."""

import pytest
import torch

from tasks.model.anatomy import dissect
from tasks.prune.activation.apply import sparse_inputs
from tasks.prune.activation.greedy import split_greedily
from tasks.prune.activation.sparse_input import SparseLinear
from tasks.prune.activation.threshold import Threshold
from tests.cases import batches, llama
from tests.prune.activation.test_sparse_inputs import logits, recipe


def shares_of(model, made):
    """Of each block: the share of its weights that is dropped."""
    linears = [dissect(model).linears(index) for index in range(len(made))]
    groups = recipe("50%").groups(dissect(model))
    sizes = [[sum(each.weight.numel() for each in group.values()) for group in of_block] for of_block in groups]
    assert sum(sizes[0]) == sum(each.weight.numel() for each in linears[0].values())
    return [
        sum(pattern.sparsity * size for pattern, size in zip(of_block.values(), own, strict=True)) / sum(own)
        for of_block, own in zip(made, sizes, strict=True)
    ]


@pytest.mark.parametrize(("share", "step"), [("40%", 0.1), ("50%", 0.07), ("25%", 1.0)])
def test_each_block_drops_the_asked_share_of_its_weights(share, step):
    model = llama()
    before = logits(model)
    made = split_greedily(model, recipe(share, selection=Threshold()), batches(), step)
    assert shares_of(model, made) == pytest.approx([float(share[:-1]) / 100] * 3, abs=1e-5)
    assert torch.equal(logits(model), before)
    assert not any(isinstance(module, SparseLinear) for module in model.modules())


def test_what_hurts_more_loses_less():
    """The output of the FFN is made a hundred times that of the attention, which then hardly counts."""
    model = llama()
    for block in model.model.layers:
        block.mlp.down_proj.weight.data *= 30
        block.self_attn.o_proj.weight.data /= 30
    for of_block in split_greedily(model, recipe("30%", selection=Threshold()), batches(), 0.05):
        assert of_block["self_attn.o_proj"].sparsity > of_block["mlp.down_proj"].sparsity


def test_a_model_is_sparse_as_it_was_divided():
    model = llama()
    made = split_greedily(model, recipe("50%", selection=Threshold()), batches(), 0.1)
    with sparse_inputs(model, recipe("50%", selection=Threshold()), batches(), made):
        for block, of_block in zip(model.model.layers, made, strict=True):
            for name, source in block.sparse_inputs.items():
                assert source.pattern == of_block[name.replace("/", ".")]


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match=r"^pattern: 2:4 given"):
        split_greedily(llama(), recipe("2:4"), batches())
    with pytest.raises(ValueError, match=r"^step: 0 given"):
        split_greedily(llama(), recipe("50%"), batches(), 0)
