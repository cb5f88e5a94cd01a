"""No option does nothing: each one that is taken changes what the model computes."""

import itertools

import pytest
import torch

from tasks.prune.activation.amber import Amber
from tasks.prune.activation.apply import sparse_inputs
from tasks.prune.activation.clact import CLACT
from tasks.prune.activation.dpts import DynamicShift
from tasks.prune.activation.greedy import split_greedily
from tasks.prune.activation.learn import Learn, learn
from tasks.prune.activation.ls import LearnedScale
from tasks.prune.activation.rsparse import LowRankRest
from tasks.prune.activation.scaling import Scaling
from tasks.prune.activation.spts import StaticShift
from tasks.prune.activation.threshold import Threshold
from tasks.prune.activation.topk import TopK
from tasks.prune.activation.var import Variance
from tasks.prune.activation.weight_variance import WeightVariance
from tests.cases import batches, llama
from tests.prune.activation.test_sparse_inputs import logits, recipe

TEXT = batches(*[(2, 24)] * 4)
MITIGATIONS = [Variance(), DynamicShift(), DynamicShift(centre="median"), StaticShift(), Scaling()]
MITIGATIONS += [LowRankRest(rank=2), LowRankRest(rank=3)]  # those that start from nothing are changed by training
RECIPES = {
    **{type(each).__name__: recipe("50%", selection=each) for each in (CLACT(), Amber(), WeightVariance())},
    **{str(each): recipe("50%", each) for each in MITIGATIONS},
    **{pattern: recipe(pattern) for pattern in ("50%", "40%", "2:4", "4:8", "8:16", "16:32")},
    "threshold": recipe("50%", selection=Threshold()),
    "modules": recipe("50%", modules=("mlp.*",)),
    "prefill": recipe("50%", prefill="dense"),
    "both": recipe("50%", Variance(), DynamicShift()),
}


def test_every_option_computes_something_else():
    outputs = {"dense": logits(llama())}
    for name, how in RECIPES.items():
        model = llama()
        with sparse_inputs(model, how, TEXT):
            outputs[name] = logits(model)
    same = [pair for pair in itertools.combinations(outputs, 2) if torch.equal(outputs[pair[0]], outputs[pair[1]])]
    assert same == [("dense", "prefill")]  # of a prompt, which is then read whole


@pytest.mark.parametrize(
    "changed", [{"rate": 0.1}, {"epochs": 1}, {"held_out": 2}, {"seed": 1}, {"patience": 1, "rate": 0.3}], ids=str
)
def test_every_setting_of_training_learns_something_else(changed):
    usual = {"rate": 0.3 if "patience" in changed else 0.01, "epochs": 4, "patience": 3}
    learnt = []
    for settings in (usual, usual | changed):
        model = llama()
        with sparse_inputs(model, recipe("50%", LearnedScale(), selection=TopK()), TEXT) as installed:
            rows = learn(installed, TEXT, Learn(**settings))
            learnt.append((logits(model), [row.steps for row in rows]))
    (one, steps), (other, other_steps) = learnt
    assert not torch.equal(one, other) or steps != other_steps


def test_the_step_of_a_greedy_division_divides_otherwise():
    coarse, fine = (split_greedily(llama(), recipe("50%", selection=Threshold()), TEXT, step) for step in (0.25, 0.1))
    assert coarse != fine
