from itertools import product

import numpy as np
import pytest

from tasks.train_controller.allocators.knapsack import Knapsack, cheapest, merge
from tasks.train_controller.allocators.problem import Problem
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


@pytest.mark.parametrize("seed", range(5))
def test_parts_that_cost_alike_are_merged_without_loss(seed):
    random = np.random.default_rng(seed)
    table = [random.standard_normal(length) for length in (4, 3, 5)]
    merged = merge(table)
    assert len(merged.least_R) == 10
    for total, least in enumerate(merged.least_R):
        every = [each for each in product(range(4), range(3), range(5)) if sum(each) == total]
        sums = {each: sum(added_R[rungs] for added_R, rungs in zip(table, each, strict=True)) for each in every}
        assert sums[tuple(merged.divided(total))] == pytest.approx(min(sums.values())) == pytest.approx(least)


def test_a_model_of_many_blocks_is_solved_at_once_and_in_silence(capfd):
    costs = (4 * 4096**2, 3 * 4096 * 11008) * 32  # Llama-2-7B
    problem = Problem(
        parts=a_problem(32).parts,
        rungs=(19,) * 64,
        saves={"parameters": costs},
        totals={"parameters": 20 * sum(costs)},
        cost="parameters",
        budget=12 * sum(costs),
    )
    random = np.random.default_rng(0)
    table = [np.cumsum(random.exponential(0.1, 20) * np.linspace(0.1, 2, 20)) for _ in costs]
    found = cheapest(problem, table)
    assert problem.meets(found)
    uniform = problem.uniform()
    added = [sum(added_R[rungs] for added_R, rungs in zip(table, each, strict=True)) for each in (found, uniform)]
    assert added[0] < added[1]
    assert capfd.readouterr().out == ""


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
