import numpy as np
import pytest

from tasks.train_controller.allocators.descent import Descent, downhill, steepness
from tasks.train_controller.allocators.search import RISES_LOOKS
from tests.train_controller.allocators.judges import TOKENS, MadeUp, a_problem, additive, all_levels, interacting


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_comes_near_the_best_and_looks_at_few(seed):
    problem = a_problem(3, 4)
    loss = interacting(problem, seed)
    judge = MadeUp(loss)
    found = Descent().search(problem, judge, {})
    best, uniform = min(map(loss, all_levels(problem))), loss(problem.uniform())
    assert loss(found.levels) - best < 0.25 * (uniform - best)
    assert judge.looked < 50


def test_it_takes_as_few_looks_where_parts_are_many():
    spent = []
    for blocks in (8, 32):
        problem = a_problem(blocks, 20)
        judge = MadeUp(additive(problem))
        found = Descent().search(problem, judge, {})
        assert judge.loss(found.levels) < 0.75 * judge.loss(problem.uniform())
        spent.append(judge.looked)
    assert spent[1] < 2 * spent[0]


def test_each_move_meets_the_budget_and_the_best_falls():
    problem = a_problem(4, 8, share=0.55)
    moves = Descent().search(problem, MadeUp(additive(problem), looks=40), {}).moves
    best = [move.best for move in moves]
    assert best == sorted(best, reverse=True)
    assert best[-1] < best[0]
    assert moves[-1].tokens <= 40 * TOKENS


def test_slopes_by_hand():
    problem = a_problem(1, 10)  # attention saves 1 a rung, the FFN 2: 30 in all
    rises = [np.arange(10.0), np.full(10, 4.0)]
    slope_P = steepness(problem, (3, 0), rises, width=0.2)
    # attention: (the mean of rungs 3, 4 and of rungs 1, 2) / 1 · 30; the FFN has no rung that has gone: 4 / 2 · 30
    assert slope_P.tolist() == [(3.5 + 1.5) / 2 * 30, 60.0]
    down_P = downhill(problem, slope_P)
    # their mean, by what each can save (1/3, 2/3), is 65: -10 and 5 from there, whose root mean square is √50
    assert down_P.tolist() == pytest.approx([-10 / 50**0.5, 5 / 50**0.5])
    assert down_P @ [10, 20] == pytest.approx(0)  # of what is saved nothing changes


def test_where_nothing_differs_it_stays_where_it_is():
    problem = a_problem(2, 4, ffn_cost=1)
    judge = MadeUp(lambda levels: float(sum(levels)), problem=problem)
    assert Descent().search(problem, judge, {}).levels == problem.uniform()
    assert judge.looked == 1 + RISES_LOOKS  # of uniform levels; other widths are of the same rises


def test_what_is_no_number_has_no_slope():
    problem = a_problem(1, 4)
    assert steepness(problem, (1, 1), [np.array([1, np.nan, 1, 1]), np.ones(4)], 0.5).tolist() == [0, 0]


@pytest.mark.parametrize("step", [0, -1, 0.01, 1.5, float("nan")])
def test_bad_input_is_refused(step):
    with pytest.raises(ValueError, match=rf"^step: {step} given, valid is 0.02 to 1$"):
        Descent(step=step)


@pytest.mark.parametrize("momentum", [-0.1, 1, float("nan")])
def test_bad_momentum_is_refused(momentum):
    with pytest.raises(ValueError, match=rf"^momentum: {momentum} given, valid is 0 <= momentum < 1$"):
        Descent(momentum=momentum)
