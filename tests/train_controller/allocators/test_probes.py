import numpy as np
import pytest

from tasks.train_controller.allocators.explore import HOPELESS, Trail
from tasks.train_controller.allocators.probes import affordable, probe
from tests.train_controller.allocators.judges import MadeUp, a_problem, interacting


@pytest.mark.parametrize("points", [4, 9])
@pytest.mark.parametrize("place", ["dense", "uniform"])
def test_with_as_many_points_as_rungs_the_table_is_exact(points, place):
    problem = a_problem(2, 4)
    loss = interacting(problem)
    around = problem.uniform() if place == "uniform" else (0,) * 4
    trail = Trail(problem, MadeUp(loss))
    table = probe(problem, trail, points, around=around)
    for part, added_R in enumerate(table):
        expected = [loss((*around[:part], rungs, *around[part + 1 :])) - loss(around) for rungs in range(5)]
        assert added_R == pytest.approx(np.array(expected))
    assert trail.moves == []


def test_between_points_lie_straight_lines():
    problem = a_problem(1, 10)
    judge = MadeUp(lambda levels: levels[0] ** 2 / 10 + levels[1])
    attention_R, ffn_R = probe(problem, Trail(problem, judge), 2, around=(0, 0))
    assert attention_R == pytest.approx(np.array([0, 0.5, 1, 1.5, 2, 2.5, 4, 5.5, 7, 8.5, 10]))
    assert ffn_R == pytest.approx(np.arange(11))
    assert len(judge.seen) == 5  # neither part gone, half and all of each


def test_a_single_point_lies_halfway_to_all_and_what_is_beyond_is_hopeless():
    problem = a_problem(1, 10, share=0.4)
    judge = MadeUp(lambda levels: levels[0] ** 2 / 10 + levels[1])
    attention_R, _ = probe(problem, Trail(problem, judge), 1, around=(4, 4))
    assert sorted(levels[0] for levels in judge.seen if levels[1] == 4) == [0, 4, 7]
    assert attention_R == pytest.approx(np.array([-1.6, -1.2, -0.8, -0.4, 0, 1.1, 2.2, 3.3, *[HOPELESS] * 3]))


@pytest.mark.parametrize("looks", range(2, 60))
def test_what_is_affordable_can_be_looked_at(looks):
    problem = a_problem(2, 10)
    judge = MadeUp(lambda levels: 0.0, looks=looks)
    points = affordable(problem, looks)
    if points:
        probe(problem, Trail(problem, judge), points, around=problem.uniform())
    assert judge.looks_left >= 0
    assert points or looks < 1 + 2 * 4
