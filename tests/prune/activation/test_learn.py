"""What mitigations learn: never worse on what is held out, better where there is something to learn, repeatable."""

import pytest
import torch

from tasks.prune.activation.apply import sparse_inputs
from tasks.prune.activation.learn import Learn, learn
from tasks.prune.activation.lpts import LearnedBias
from tasks.prune.activation.ls import LearnedScale
from tasks.prune.activation.rsparse import LowRankRest
from tasks.prune.activation.sparse_input import dense, learned
from tasks.prune.activation.spts import StaticShift
from tasks.prune.activation.var import Variance
from tests.cases import BLOCKS, batches, llama
from tests.prune.activation.test_sparse_inputs import logits, recipe

TEXT = batches(*[(2, 24)] * 6)
LEARNING = [LearnedBias(), LearnedScale(), StaticShift(), LowRankRest(rank=2)]


@pytest.mark.parametrize("mitigation", LEARNING, ids=str)
def test_no_block_gets_worse_on_what_is_held_out_and_some_better(mitigation):
    model = llama()
    with sparse_inputs(model, recipe("50%", mitigation), TEXT) as installed:
        before = {name: value.clone() for name, value in learned(model).items()}
        rows = learn(installed, TEXT, Learn(epochs=5))
        assert [row.block for row in rows] == list(range(BLOCKS))
        assert all(row.error_to <= row.error_from for row in rows)
        assert sum(row.error_to for row in rows) < sum(row.error_from for row in rows)
        assert any(not torch.equal(value, before[name]) for name, value in learned(model).items())
        assert not any(parameter.requires_grad for parameter in learned(model).values())


def test_weights_of_the_model_are_not_touched():
    model = llama()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with sparse_inputs(model, recipe("50%", LearnedBias()), TEXT) as installed:
        learn(installed, TEXT, Learn(rate=0.01))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_rate_that_only_makes_it_worse_leaves_all_as_it_was():
    model = llama()
    with sparse_inputs(model, recipe("50%", LearnedBias()), TEXT) as installed:
        before = logits(model)
        rows = learn(installed, TEXT, Learn(rate=1e6, epochs=3))
        assert torch.equal(logits(model), before)
    assert all(row.error_to == row.error_from for row in rows)
    assert all(0 < row.steps <= 2 * 5 for row in rows)  # patience of two passes over five batches


def test_the_same_seed_learns_the_same():
    learnt = []
    for seed in (0, 0, 1):
        model = llama()
        with sparse_inputs(model, recipe("50%", LearnedBias()), TEXT) as installed:
            learn(installed, TEXT, Learn(rate=0.01, seed=seed))
            learnt.append(logits(model))
    assert torch.equal(learnt[0], learnt[1])
    assert not torch.equal(learnt[0], learnt[2])


def test_within_dense_all_is_read():
    model = llama()
    before = logits(model)
    with sparse_inputs(model, recipe("50%"), TEXT):
        with dense(model):
            assert torch.equal(logits(model), before)
        assert not torch.equal(logits(model), before)


def test_nothing_to_learn_and_nothing_to_score_on_are_refused():
    with (
        sparse_inputs(llama(), recipe("50%", Variance()), TEXT) as installed,
        pytest.raises(ValueError, match="none that learns"),
    ):
        learn(installed, TEXT, Learn())
    with (
        sparse_inputs(llama(), recipe("50%", LearnedBias()), TEXT) as installed,
        pytest.raises(ValueError, match="one given"),
    ):
        learn(installed, TEXT[:1], Learn())
    with pytest.raises(ValueError, match=r"^rate: 0 given"):
        Learn(rate=0)
    with pytest.raises(ValueError, match=r"^held_out: 1 given"):
        Learn(held_out=1)
