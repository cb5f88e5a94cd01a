import numpy as np
import pytest

from tasks.train_controller.allocators.knapsack import Knapsack, cheapest
from tests.train_controller.allocators.judges import MadeUp, a_problem, additive, all_levels


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("ffn_cost", [1, 3, 24_576])
def test_it_is_what_brute_force_finds(seed, ffn_cost):
    random = np.random.default_rng(seed)
    problem = a_problem(2, 5, share=float(random.uniform(0.2, 0.8)), ffn_cost=ffn_cost)
    table = [random.standard_normal(6) for _ in problem.parts]  # of no shape at all
    found = cheapest(problem, table)

    def added(levels):
        return sum(added_R[rungs] for added_R, rungs in zip(table, levels, strict=True))

    assert found in set(all_levels(problem))
    assert added(found) == pytest.approx(min(map(added, all_levels(problem))), abs=1e-9)


@pytest.mark.parametrize("around", ["dense", "uniform"])
@pytest.mark.parametrize("power", [0.5, 2.0])
def test_where_losses_add_up_it_finds_the_best(around, power):
    problem = a_problem(2, 5, share=0.45)
    loss = additive(problem, 1, power)
    found = Knapsack(around=around).search(problem, MadeUp(loss), {})
    assert loss(found.levels) == pytest.approx(min(map(loss, all_levels(problem))))
    assert len(found.moves) == 2


def test_with_few_looks_it_has_a_coarser_table_and_with_fewer_none():
    problem = a_problem(3, 8)
    loss = additive(problem)
    coarse, fine = (Knapsack().search(problem, MadeUp(loss, looks=looks), {}) for looks in (22, 200))
    assert loss(fine.levels) <= loss(coarse.levels) < loss(problem.uniform())
    assert Knapsack().search(problem, MadeUp(loss, looks=5), {}).levels == problem.uniform()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"^points: 0 given, valid is 1 or more$"):
        Knapsack(points=0)
    with pytest.raises(ValueError, match=r"^around: sparse given, valid is dense, uniform$"):
        Knapsack(around="sparse")
