import numpy as np
import pytest

from tests.train_controller.allocators.judges import a_problem, all_levels


@pytest.mark.parametrize("ffn_cost", [1, 2, 3, 7])
def test_a_move_takes_as_much_as_the_budget_allows(ffn_cost):
    problem = a_problem(2, 6, share=0.45, ffn_cost=ffn_cost)
    random = np.random.default_rng(0)
    met = list(all_levels(problem))
    moved = 0
    for _ in range(300):
        levels = met[random.integers(len(met))]
        donor, receiver = random.integers(4, size=2).tolist()
        rungs = int(random.integers(1, 4))
        found = problem.moved(levels, donor, receiver, rungs)
        if found is None:
            continue
        moved += 1
        assert problem.meets(found)
        assert found[donor] > levels[donor]
        assert found[receiver] <= levels[receiver] - rungs
        assert problem.budget - problem.saved(found) < problem.unit_costs[donor]
        assert [i for i in range(4) if found[i] != levels[i]] == sorted([donor, receiver])
    assert moved > 30


def test_moves_by_hand():
    problem = a_problem(2, 4, share=0.5, ffn_cost=3)  # costs 1, 3, 1, 3; the budget is 16
    assert problem.moved((2, 2, 2, 2), 0, 2) == (3, 2, 1, 2)
    assert problem.moved((2, 2, 2, 2), 1, 0) is None  # a rung of the FFN pays for three of attention, there are two
    assert problem.moved((3, 2, 1, 2), 1, 0) == (0, 3, 1, 2)
    assert problem.moved((2, 2, 1, 2), 0, 2) == (4, 2, 0, 2)  # and the one that was left of the budget
    assert problem.moved((2, 2, 2, 2), 0, 1) is None  # three rungs more than it has left
    assert problem.moved((2, 2, 2, 2), 0, 0) is None
