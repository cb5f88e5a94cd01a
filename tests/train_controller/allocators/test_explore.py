import math

import pytest

from tasks.train_controller.allocators.explore import HOPELESS, Trail
from tasks.train_controller.allocators.search import Spent
from tests.train_controller.allocators.judges import MadeUp, a_problem


def test_a_trail_remembers_the_best_and_tells_every_move():
    problem, told = a_problem(1, 4), []
    losses = {(0, 2): 3.0, (4, 0): 1.0, (2, 1): 2.0}
    trail = Trail(problem, MadeUp(losses.get, windows=1, looks=3), told.append)
    hard = trail.look((0, 2)) - 3.0
    assert trail.look((4, 0)) == pytest.approx(1 + hard)
    trail.look((2, 1))
    assert trail.best == (4, 0)
    assert [move.best - hard for move in trail.moves] == pytest.approx([3, 1, 1])
    assert [move.loss - hard for move in trail.moves] == pytest.approx([3, 1, 2])
    assert [move.tokens for move in trail.moves] == [1, 2, 3]  # a look is one window of one token
    assert told == trail.moves
    with pytest.raises(Spent):
        trail.look((0, 0))
    assert trail.best == (4, 0)


def test_a_reward_decides_where_it_is_given_and_acceptance_where_that_is():
    trail = Trail(a_problem(1, 4), MadeUp(lambda levels: 0.0))
    trail.note((0, 2), 3.0, reward=1.0)
    trail.note((4, 0), 1.0, reward=0.5)
    assert trail.best == (0, 2)
    trail.note((2, 1), 4.0, reward=0.0, accepted=True)
    assert trail.best == (2, 1)
    trail.note((4, 0), 1.0, reward=9.0, accepted=False)
    assert trail.best == (2, 1)
    assert [move.best for move in trail.moves] == [3, 3, 4, 4]


def test_a_loss_that_is_no_number_stays_finite():
    problem = a_problem(1, 4)
    assert Trail(problem, MadeUp(lambda levels: math.inf)).look(problem.uniform()) == HOPELESS
