"""What holds of every allocator."""

from dataclasses import FrozenInstanceError, fields

import pytest

from tasks.train_controller.allocators import SEARCHERS
from tasks.train_controller.allocators.problem import Problem
from tasks.train_controller.allocators.search import Searcher
from tests.train_controller.allocators.judges import MadeUp, a_problem, interacting, some_features

LOOKING = [name for name in SEARCHERS if name not in ("uniform", "adapt")]


def search(name, problem, judge, seed=0, **more):
    return SEARCHERS[name]().search(problem, judge, some_features(problem), seed=seed, **more)


@pytest.mark.parametrize("looks", [0, 1, 2, 7, 40])
@pytest.mark.parametrize("name", SEARCHERS)
def test_the_budget_is_met_however_few_looks_there_are(name, looks):
    for share, ffn_cost in ((0.3, 1), (0.55, 5)):
        problem = a_problem(2, 5, share=share, ffn_cost=ffn_cost)
        judge = MadeUp(interacting(problem), looks=looks)
        found = search(name, problem, judge)
        assert problem.meets(found.levels)
        assert judge.looks_left >= 0
        assert all(move.tokens <= judge.tokens for move in found.moves)


@pytest.mark.parametrize("name", SEARCHERS)
def test_the_same_seed_gives_the_same_and_no_global_chance_is_used(name):
    problem = a_problem(2, 5)
    first, second = (search(name, problem, MadeUp(interacting(problem), looks=40), seed=3) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", LOOKING)
def test_it_ends_no_worse_than_uniform_and_tells_its_moves(name):
    problem, told = a_problem(3, 5), []
    loss = interacting(problem, 5)
    found = search(name, problem, MadeUp(loss, looks=60), on_move=told.append)
    assert loss(found.levels) < loss(problem.uniform())
    assert tuple(told) == found.moves


@pytest.mark.parametrize("name", LOOKING)
def test_losses_that_are_no_number_do_not_stop_it(name):
    problem = a_problem(2, 5)
    loss = interacting(problem)
    judge = MadeUp(lambda levels: float("inf") if levels[1] > 2 else loss(levels), looks=40, problem=problem)
    assert problem.meets(search(name, problem, judge).levels)


@pytest.mark.parametrize("name", SEARCHERS)
def test_a_single_part_has_nothing_to_choose(name):
    parts, costs = a_problem(1).parts[:1], {"saves": {"parameters": (1,)}, "totals": {"parameters": 8}}
    only = Problem(parts=parts, rungs=(4,), cost="parameters", budget=2, **costs)
    assert search(name, only, MadeUp(lambda levels: float(sum(levels)), looks=20, problem=only)).levels == (2,)


@pytest.mark.parametrize("searcher", SEARCHERS.values(), ids=SEARCHERS)
def test_it_is_frozen_and_its_fields_have_defaults(searcher):
    made = searcher()
    assert isinstance(made, Searcher)
    for field in fields(made):
        with pytest.raises(FrozenInstanceError):
            setattr(made, field.name, 0)
