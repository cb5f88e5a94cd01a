"""Rises against a gate in front of every weight or unit, closed by hand, in float64."""

import numpy as np
import pytest
import torch

from tasks.calibrate.importance.loss import nll, scored
from tasks.prune.structure.cut import Cut
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import Unstructured
from tasks.train_controller.allocators.losses import rung_rises, window_losses
from tasks.train_controller.allocators.ranked import ranked
from tasks.train_controller.allocators.unit_rungs import unit_rungs
from tasks.train_controller.allocators.weight_rungs import weight_rungs
from tests.cases import FAMILIES, batches, llama, opt
from tests.train_controller.allocators.test_unit_rungs import scores_of

IDS_WT = torch.cat(batches((4, 20), seed=3))
# How far to move a gate: far where norms are float32 and leave some 1e-7 of the loss to chance, near where ReLUs bend.
MAKERS = {"llama": (llama, 0.05), "opt": (opt, 1e-4), "gpt_neox": (FAMILIES["gpt_neox"], 1e-4)}


def of_units(model):
    return unit_rungs(model, scores_of(model), Cut(budget=0.3, round_to=8, repair=False))


def of_weights(model):
    pattern = Unstructured(0.5)
    parts = ranked(model, Magnitude(), pattern, batches())
    return weight_rungs(model, pattern, {f"{e.part.block}.{name}": o for e in parts for name, o in e.outlasted.items()})


def slightly(rungs, levels, place, rung, away):
    """The loss where what goes with this rung is a little smaller or larger than it is."""
    with rungs.levers(levels) as levers_P, torch.no_grad():
        for lever in levers_P[place]:
            lever.value.add_(away * lever.full * (lever.outlasts == rung))
        loss = nll(rungs.model, IDS_WT).item() / scored([IDS_WT])
        for lever in levers_P[place]:
            lever.value.sub_(away * lever.full * (lever.outlasts == rung))
    return loss


@pytest.mark.parametrize(("make", "h"), MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("rungs_of", [of_units, of_weights])
def test_a_rise_is_the_derivative_by_the_gate(make, h, rungs_of):
    model = make().double()
    rungs = rungs_of(model)
    levels = tuple(most // 2 for most in rungs.problem.rungs)
    measured = rung_rises(rungs, levels, IDS_WT)
    rises = measured.parts
    with rungs.applied(levels):
        assert measured.loss == pytest.approx(np.mean(window_losses(model, IDS_WT)))
    assert [len(rise_R) for rise_R in rises] == list(rungs.problem.rungs)
    for place, rise_R in enumerate(rises[:3]):
        for rung in {0, levels[place], len(rise_R) - 1}:
            up, down = (slightly(rungs, levels, place, rung, away) for away in (h, -h))
            assert rise_R[rung] == pytest.approx(-(up - down) / (2 * h), rel=5e-3, abs=1e-5)


@pytest.mark.parametrize("rungs_of", [of_units, of_weights])
def test_levers_lose_what_levels_lose_and_leave_no_trace(rungs_of):
    model = llama()
    rungs = rungs_of(model)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    levels = rungs.problem.uniform()
    with rungs.applied(levels):
        expected = window_losses(model, IDS_WT)
    with rungs.levers(levels):
        assert window_losses(model, IDS_WT) == pytest.approx(expected, rel=1e-6)
    rung_rises(rungs, levels, IDS_WT)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())
