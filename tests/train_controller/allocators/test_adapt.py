from fractions import Fraction

import pytest

from tasks.train_controller.allocators.adapt import AdaptPruner, importances
from tests.train_controller.allocators.judges import MadeUp, a_problem, some_features

COSINES = (0.5, 0.9, 0.8, 0.6)  # −0.7 ± 0.2, −0.2, −0.1, 0.1: of the largest 1, −1, −0.5, 0.5


def with_cosines(problem, cosines=COSINES):
    return {part: {"cosine": cosines[part.block]} for part in problem.parts}


def found(problem, **fields):
    return AdaptPruner(**fields).search(problem, MadeUp(lambda levels: 0.0, looks=0), with_cosines(problem)).levels


def test_importances_by_hand():
    assert importances(dict(enumerate(COSINES))) == pytest.approx({0: 1, 1: -1, 2: -0.5, 3: 0.5})
    assert importances({0: 0.7, 1: 0.7}) == {0: 0, 1: 0}


def test_levels_by_hand():
    # A step adds 0.02 − 0.02 Ĩ: 0, 0.04, 0.03 and 0.01. Ten of them are 0, 0.4, 0.3 and 0.1, a fifth of the whole.
    problem = a_problem(4, 100, share=0.2)
    assert found(problem) == (0, 0, 40, 40, 30, 30, 10, 10)
    # With A = 0.01 they are 0.01, 0.03, 0.025 and 0.015; ten save a fifth again.
    assert found(problem, amplitude=0.01) == (10, 10, 30, 30, 25, 25, 15, 15)


def test_what_would_go_whole_is_held_at_99_of_100():
    # 33 steps: 0, 0.99 (1.32 unclipped), 0.99 and 0.33, 2.31 of 4 blocks.
    problem = a_problem(4, 100, share=0.5775)
    assert found(problem) == (0, 0, 99, 99, 99, 99, 33, 33)


@pytest.mark.parametrize("cosines", [COSINES, (0.56, 0.93, 0.81, 0.71), (0.3, 0.1, 0.2, 0.7)])
def test_a_budget_that_the_steps_cannot_reach_is_projected(cosines):
    problem = a_problem(4, 100, share=0.9)
    levels = AdaptPruner().search(problem, MadeUp(lambda levels: 0.0), with_cosines(problem, cosines)).levels
    assert problem.meets(levels)
    assert levels[2 * cosines.index(min(cosines))] == min(levels)


def test_a_target_that_falls_between_two_steps_is_corrected_to():
    problem = a_problem(4, 100, share=0.19)  # the tenth step is 0.01 too far in all; the first block is at none
    shares = [Fraction(each, 100) - Fraction(4, 300) for each in (40, 30, 10)]
    expected = [0.0] * 2 + [float(100 * share) for share in shares for _ in range(2)]
    assert max(abs(a - b) for a, b in zip(found(problem), expected, strict=True)) < 1
    assert problem.saved(found(problem)) == problem.budget


def test_blocks_that_do_not_differ_are_cut_alike():
    problem = a_problem(3, 10)
    same = with_cosines(problem, (0.7, 0.7, 0.7))
    assert AdaptPruner().search(problem, MadeUp(lambda levels: 0.0), same).levels == problem.uniform()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"^amplitude: 0 given, valid is 0 < amplitude < 1$"):
        AdaptPruner(amplitude=0)
    with pytest.raises(ValueError, match=r"^step: 1.5 given"):
        AdaptPruner(step=1.5)
    with pytest.raises(ValueError, match=r"^step: 1e-12 given, valid is 0.0001 <= step < 1$"):
        AdaptPruner(step=1e-12)  # of the steps that are too small to be counted none would be taken
    problem = a_problem()
    known = {part: {"depth": 1.0} if part.block == 1 else each for part, each in some_features(problem).items()}
    with pytest.raises(ValueError, match=r"^features: no cosine given for 1.attention"):
        AdaptPruner().search(problem, MadeUp(lambda levels: 0.0), known)
