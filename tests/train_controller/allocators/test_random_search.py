import pytest

from tasks.train_controller.allocators.random_search import RandomSearch
from tests.train_controller.allocators.judges import MadeUp, a_problem, additive, all_levels


def test_it_finds_the_best_of_a_small_problem_and_looks_at_what_it_says():
    problem = a_problem(2, 2, share=0.5, ffn_cost=1)
    loss = additive(problem)
    found = RandomSearch(draws=400).search(problem, MadeUp(loss), {})
    assert loss(found.levels) == min(map(loss, all_levels(problem)))
    assert len(found.moves) == 401


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"^draws: 0 given, valid is 1 or more$"):
        RandomSearch(draws=0)
    with pytest.raises(ValueError, match=r"^spread: 0.0 given, valid is 0 < spread <= 1$"):
        RandomSearch(spread=0.0)
