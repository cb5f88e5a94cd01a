"""Presets: what a preset holds, for which models and patterns it is run."""

import pytest

from flows.choices import Oneshot
from flows.methods import parse_pruner
from flows.prepare import check_points
from flows.presets import SWEEPS, sweep_named
from tasks.prune import PRUNERS
from tasks.train_controller.allocators import SEARCHERS

CUTS = ("-20%", "-30%", "-40%")
SMALL = {"samples": 4, "window": 32}


def test_the_table_of_methods_has_every_method_at_every_pattern_and_all_that_is_done_beside():
    points = SWEEPS["methods"]().points
    plain = [point for point in points if point.name in PRUNERS]
    assert {(point.name, point.pattern) for point in plain} == {
        (name, pattern) for name in PRUNERS for pattern in ("50%", "60%", "70%", "2:4", "4:8")
    }
    assert any(point.permute for point in points)
    assert any(point.reconstruct is not None for point in points)
    assert len({point.command() for point in points}) == len(points)


def test_every_allocator_stands_beside_the_others_at_equal_looks():
    points = SWEEPS["allocators"]().points
    searched = [point for point in points if point.search is not None]
    asked = {(point.search.method, point.pattern) for point in searched}
    assert asked == {(name, wanted) for name in SEARCHERS if name != "uniform" for wanted in (*CUTS, "60%")}
    assert {point.pattern for point in points if point.search is None} == {*CUTS, "60%"}
    assert len({point.tokens_to_look_at for point in searched}) == 1


def test_an_allocation_of_many_numbers_has_a_short_name_and_another_one_another():
    def name(*sparsities):
        allocation = {"method": "given", "sparsities": sparsities}
        return Oneshot.parse(pruner=parse_pruner("wanda"), pattern="50%", allocation=allocation).name

    one, other = name(*[0.4, 0.6] * 16), name(*[0.6, 0.4] * 16)
    assert one != other
    assert len(one) < 30
    assert name(0.4, 0.6) == "wanda+given,sparsities=0.4+0.6"


def test_only_some_patterns_of_a_preset_for_several_models():
    points = sweep_named("methods", ("builtin", "some/model"), ("2:4", "50%"), seed=3).points
    assert {(point.model, point.pattern) for point in points} == {
        (model, pattern) for model in ("builtin", "some/model") for pattern in ("2:4", "50%")
    }
    assert {point.seed for point in points} == {3}


def test_a_pattern_that_a_preset_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(ValueError, match=r"^pattern: '5:8' is not in the preset demo; choose some of 50%, 2:4, -30%$"):
        sweep_named("demo", only=["5:8"])


def test_other_pruners_than_the_presets_take_all_their_places(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text(
        "from dataclasses import dataclass\n"
        "from tasks.prune.weight.magnitude import Magnitude\n\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Mine(Magnitude):\n"
        "    pass\n"
    )
    points = sweep_named("methods", only=["2:4"], pruners=[f"{own}:Mine", "wanda"]).points
    beside = {point.name.partition("+")[2] for point in SWEEPS["methods"]().points if point.pattern == "2:4"}
    assert {point.name for point in points} == {
        f"{name}+{what}".strip("+") for name in ("mine.py:Mine", "wanda") for what in beside
    }
    assert len({point.command() for point in points}) == len(points)


def test_a_preset_that_prunes_no_weights_takes_no_pruner():
    with pytest.raises(ValueError, match=r"^pruner: wanda given, but the preset ladder prunes no weights; leave it"):
        sweep_named("ladder", pruners=["wanda"])


def test_a_pattern_that_does_not_divide_a_model_of_a_sweep_can_be_left_out(tiny_model):
    with pytest.raises(
        ValueError, match=r"^pattern: 16:64 does not .*; --pattern chooses some of the sweep's patterns$"
    ):
        check_points([Oneshot.parse(pruner=parse_pruner("wanda"), pattern="16:64", model=str(tiny_model), **SMALL)])
