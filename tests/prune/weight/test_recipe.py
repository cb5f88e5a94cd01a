"""Recipes over whole models: two streams, updates in both orders, and steps that contradict each other."""

import copy

import pytest
import torch

from tasks.calibrate.observers import InputDrift, InputNorm
from tasks.calibrate.walk import Walk
from tasks.model.anatomy import dissect
from tasks.prune.allocation import Allocation
from tasks.prune.weight import block
from tasks.prune.weight.apply import prune_blocks, prune_model
from tasks.prune.weight.lowrank import LowRank
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import parse_pattern
from tasks.prune.weight.recipe import Recipe
from tasks.prune.weight.reconstruct import Reconstruct
from tasks.prune.weight.refit import Refit
from tasks.prune.weight.sparsegpt import SparseGPT
from tasks.prune.weight.svd import SVD, ActivationSVD
from tasks.prune.weight.sweep import Sweep
from tasks.prune.weight.update import Leave
from tasks.prune.weight.wanda import Wanda
from tests.cases import FAMILIES, llama
from tests.prune.weight.recipes import IDS, TWO_OF_FOUR, pruned
from tests.prune.weight.test_apply import weights


class InputMean(InputNorm):
    """Of one's own: it may know more than norms, but no Gram."""


class OfMeans(Wanda):
    observes = InputMean


class OfDrift(Wanda):
    """With an observer of its own that sees both streams."""

    observes = type("OwnDrift", (InputDrift,), {})


def last_hidden(model, ids):
    """What the last block gives."""
    anatomy = dissect(model)
    with torch.no_grad():
        walk = Walk(model, anatomy, ids)
        for index in range(len(anatomy.blocks)):
            outputs = list(walk.step(index))
    return outputs


@pytest.mark.parametrize("order", ["block", "group"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_refitted_with_drift(family, order):
    model, rows = pruned(FAMILIES[family](), Wanda(), update=Refit(drift=0.5), order=order)
    assert all(((weight_OI.reshape(-1, 4) != 0).sum(1) <= 2).all() for weight_OI in weights(model).values())
    assert all(row.damp is not None and row.sweep_error is None for row in rows)


@pytest.mark.parametrize("order", ["block", "group"])
def test_without_drift_between_the_streams_the_correction_changes_nothing(order):
    """Nothing is dropped, so both streams are one, and a refit of everything is the dense model."""
    dense = llama().double()
    model, _ = pruned(dense, Wanda(), pattern=parse_pattern("4:4"), update=Refit(drift=1.0, damp=0.0), order=order)
    for name, weight_OI in weights(model).items():
        torch.testing.assert_close(weight_OI, weights(dense)[name], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("order", ["block", "group"])
def test_the_dense_stream_goes_through_the_dense_model(order):
    dense = llama().double()
    expected = last_hidden(dense, IDS)
    model = copy.deepcopy(dense)
    recipe = Recipe(pruner=Wanda(), pattern=TWO_OF_FOUR, update=Refit(drift=0.5), order=order)
    twins = []
    made = Walk.twin

    def remember(walk):
        twins.append(made(walk))
        return twins[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Walk, "twin", remember)
        list(prune_blocks(model, recipe, IDS))
    (twin,) = twins
    for found, wanted in zip(twin.hidden, expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("order", ["block", "group"])
def test_leave_and_sweep_are_what_the_pruners_do_by_themselves(order):
    dense = llama().double()
    for pruner, update in ((Wanda(), Leave()), (SparseGPT(), Sweep())):
        one, other = pruned(dense, pruner, order=order)[0], pruned(dense, pruner, update=update, order=order)[0]
        for name, weight_OI in weights(one).items():
            torch.testing.assert_close(weight_OI, weights(other)[name])


def test_an_update_of_magnitudes_keep_is_calibrated():
    _, rows = pruned(llama(), Magnitude(), update=Refit())
    assert all(row.error_from == "gram" and row.error <= row.sweep_error * 1.01 for row in rows)


def test_none_leaves_sparsegpts_weights_without_its_sweep():
    dense = llama()
    swept, left = (pruned(dense, SparseGPT(), update=update)[0] for update in (None, Leave()))
    name = "model.layers.0.self_attn.q_proj"
    assert torch.equal(weights(left)[name] != 0, weights(swept)[name] != 0)
    kept = weights(left)[name] != 0
    assert torch.equal(weights(left)[name][kept], weights(dense)[name][kept])
    assert not torch.equal(weights(left)[name], weights(swept)[name])


@pytest.mark.parametrize(("options", "forwards"), [({"permute": True}, 1), ({"reconstruct": Reconstruct(epochs=1)}, 1)])
def test_where_nobody_observes_only_the_first_batch_runs_through_the_unpruned_block(options, forwards, monkeypatch):
    recipe = Recipe(pruner=Magnitude(), pattern=TWO_OF_FOUR, **options)
    seen, run = [], Walk.output

    def count(walk, index, batch):
        seen.append((index, batch))
        return run(walk, index, batch)

    model = llama(num_hidden_layers=1)
    monkeypatch.setattr(block, "prune_linears", lambda *arguments: seen.append("pruned") or [])
    monkeypatch.setattr(Walk, "output", count)
    anatomy = dissect(model)
    walk = Walk(model, anatomy, IDS)
    cut = block.Cut(
        anatomy=anatomy,
        index=0,
        recipe=recipe,
        patterns=dict.fromkeys(anatomy.linears(0), TWO_OF_FOUR),
        foldings=dict.fromkeys(anatomy.linears(0)),
    )
    with torch.no_grad():
        block.observe_then_prune(cut, walk, walk.twin() if recipe.follows_dense else None)
    before = seen[: seen.index("pruned")]
    assert len(before) == forwards + (len(IDS) if recipe.follows_dense else 0)


def test_an_allocation_arrives():
    dense, pattern = llama(), parse_pattern("50%@matrix")
    _, rows = pruned(dense, Wanda(), pattern=pattern, allocation=Allocation(sparsities=(0.25, 0.5, 0.75)))
    for index, share in enumerate((0.25, 0.5, 0.75)):
        own = [row for row in rows if row.block == index]
        assert sum(row.zeros for row in own) == share * sum(row.out_features * row.in_features for row in own)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pruner": Magnitude(), "order": "group"}, "order: .* observes no inputs"),
        ({"pruner": Wanda(), "permute": True, "pattern": parse_pattern("50%")}, "permute: pattern 50% given"),
        ({"pruner": Wanda(), "permute": True, "low_rank": LowRank()}, "low_rank: .* permute"),
        ({"pruner": Wanda(), "update": Leave(), "low_rank": LowRank()}, "low_rank: .* update"),
        ({"pruner": Wanda(), "reconstruct": Reconstruct(), "low_rank": LowRank()}, "low_rank: .* reconstruct"),
        ({"pruner": None}, "pruner: none given"),
        ({"pruner": None, "low_rank": LowRank()}, "pruner: none given"),
        ({"pruner": None, "low_rank": SVD(rank=3)}, "pattern: 2:4 given, .* use 0% or no rank"),
        ({"pruner": None, "update": Leave(), "low_rank": SVD(linears=("mlp",))}, "update: without a pruner"),
        ({"pruner": Wanda(), "low_rank": SVD()}, "pruner: .* low rank takes all linears; choose some, or no pruner"),
        (
            {"pruner": Wanda(), "permute": True, "low_rank": SVD(linears=("mlp",))},
            "low_rank: .* cannot follow .* permute",
        ),
        (
            {"pruner": Wanda(), "reconstruct": Reconstruct(), "low_rank": SVD(linears=("mlp",))},
            "low_rank: .* cannot follow .* reconstruct",
        ),
        ({"pruner": Wanda(), "order": "linear"}, "order: .* valid is block or group"),
        ({"pruner": OfMeans(), "update": Refit()}, "update: it .* InputGram and another step InputMean, .* one obs"),
        ({"pruner": OfMeans(), "update": Refit(drift=0.5)}, "pruner: it .* InputMean and another step InputDrift"),
    ],
)
def test_contradictions_raise(options, says):
    with pytest.raises(ValueError, match=says):
        Recipe(**{"pattern": TWO_OF_FOUR, **options})


@pytest.mark.parametrize("order", ["block", "group"])
def test_an_observer_of_ones_own_that_knows_more_serves_every_step(order):
    dense, update = llama(), Refit(drift=0.5)
    own, plain = (weights(pruned(dense, kind(), update=update, order=order)[0]) for kind in (OfDrift, Wanda))
    assert all(torch.equal(own[name], plain[name]) for name in plain)


@pytest.mark.parametrize(
    ("options", "who"),
    [
        ({"permute": True}, "permute"),
        ({"reconstruct": Reconstruct()}, "reconstruct"),
        ({"update": Refit(), "permute": True}, "update, permute"),
        ({"low_rank": LowRank()}, "low_rank"),
    ],
)
def test_without_windows_it_is_said_who_needs_them(options, who):
    with pytest.raises(ValueError, match=rf"^batches: none given; {who} needs? calibration windows$"):
        pruned(llama(), Magnitude(), ids=None, **options)


@pytest.mark.parametrize(
    ("options", "damp"),
    [
        ({"pruner": Wanda()}, None),
        ({"pruner": SparseGPT()}, 0.01),
        ({"pruner": SparseGPT(damp=0.03)}, 0.03),
        ({"pruner": SparseGPT(damp=0.03), "update": Leave()}, 0.03),
        ({"pruner": SparseGPT(damp=0.03), "update": Refit()}, 1e-4),
        ({"pruner": Magnitude(), "update": Sweep(damp=0.02)}, 0.02),
        ({"pruner": Magnitude(), "low_rank": LowRank(damp=0.05, rounds=1)}, 0.05),
        ({"pruner": None, "low_rank": ActivationSVD(damp=0.05)}, 0.05),
        ({"pruner": None, "low_rank": SVD()}, None),
    ],
)
def test_the_damping_is_recorded_of_whoever_adds_it(options, damp):
    rows = prune_model(llama(), pattern=parse_pattern("30%"), batches=IDS, **options)
    assert {row.damp for row in rows} == {damp}


def test_of_linears_with_factors_and_without_each_has_its_own_damping():
    _, rows = pruned(llama(), SparseGPT(), low_rank=ActivationSVD(rank=3, damp=0.05, linears=("mlp",)))
    assert all(row.damp == (0.05 if row.linear.startswith("mlp") else 0.01) for row in rows)
