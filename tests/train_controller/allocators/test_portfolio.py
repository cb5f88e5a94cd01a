import numpy as np
import pytest
from scipy.stats import norm

from tasks.train_controller.allocators.portfolio import Portfolio, Ration, expanded
from tasks.train_controller.allocators.search import Spent
from tests.train_controller.allocators.judges import MadeUp, a_problem, additive, interacting, some_features

NAMES = ["uniform", "adapt", "split", "descent", "milp", "evolution", "rl", "refine"]


class Misleading(MadeUp):
    """Held-out windows say the opposite of those of the search."""

    def held_out_losses(self, levels):
        return tuple(-loss for loss in super().held_out_losses(levels))


def choose(judge, seed=0, **fields):
    problem = a_problem(3, 5)
    return problem, Portfolio(**fields).search(problem, judge(problem), some_features(problem, seed), seed=seed)


def test_it_ships_the_lowest_of_the_windows_held_out_and_says_so():
    judge = MadeUp(interacting(a_problem(3, 5)), looks=120, windows=16, noise=0.02)
    _, found = choose(lambda problem: judge)
    assert [each.name for each in found.candidates] == NAMES
    best = min(found.candidates, key=lambda each: each.held_out)
    assert found.levels == best.levels
    assert best.high < 0
    assert found.why.startswith(f"{best.name}: the lowest")
    for each in found.candidates:
        difference_W = np.subtract(
            judge.held_out_losses(each.levels), judge.held_out_losses(found.candidates[0].levels)
        )
        assert each.low <= difference_W.mean() <= each.high
        assert each.held_out == np.mean(judge.held_out_losses(each.levels))
    assert sum(each.tokens for each in found.candidates) <= judge.tokens <= 120 * judge.windows
    assert [each.tokens for each in found.candidates[:2]] == [0, 0]
    assert list(dict.fromkeys(move.allocator for move in found.moves)) == NAMES[2:]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", [MadeUp, Misleading])
def test_it_never_ships_what_is_worse_than_uniform_on_the_windows_held_out(seed, kind):
    judge = kind(additive(a_problem(3, 5), seed), looks=60, noise=1.0, seed=seed)
    problem, found = choose(lambda problem: judge, seed)
    assert np.mean(judge.held_out_losses(found.levels)) <= np.mean(judge.held_out_losses(problem.uniform()))


def test_where_nothing_is_sure_it_is_uniform():
    regretted = 0
    for seed in range(8):
        judge = MadeUp(lambda levels: 1.0, looks=40, noise=0.5, windows=24, seed=seed, problem=a_problem(3, 5))
        problem, found = choose(lambda problem, judge=judge: judge, seed)
        regretted += found.levels != problem.uniform()
        assert found.levels != problem.uniform() or found.why.startswith("uniform: ")
    assert regretted <= 1  # at most one in twenty is promised


def test_a_few_windows_are_not_enough_to_leave_uniform():
    judge = MadeUp(interacting(a_problem(3, 5)), looks=120, windows=7)
    problem, found = choose(lambda problem: judge)
    assert found.levels == problem.uniform()
    assert "on 7 windows, fewer than 8" in found.why


@pytest.mark.parametrize("windows", [8, 16, 64])
def test_the_end_of_an_interval_is_passed_as_rarely_as_is_said(windows):
    # of normal differences resampled means are normal too, with the variance that divides by n
    random, tail = np.random.default_rng(windows), 0.05
    differences_NW = random.standard_normal((20_000, windows))
    ends_N = differences_NW.mean(1) - norm.ppf(expanded(tail, windows)) * differences_NW.std(1) / windows**0.5
    assert (ends_N < 0).mean() == pytest.approx(tail, abs=0.006)
    assert expanded(tail, 10**6) == pytest.approx(tail, rel=1e-3)


def test_a_ration_gives_no_more_than_its_looks():
    judge = MadeUp(lambda levels: 0.0, looks=10)
    ration = Ration(judge, 2)
    ration.search_losses((0, 0))
    ration.search_losses((0, 1))
    ration.search_losses((0, 0))
    with pytest.raises(Spent):
        ration.search_losses((0, 2))
    assert ration.looks_left == 0
    assert judge.looks_left == 8
    assert ration.search_losses((0, 1)) == judge.search_losses((0, 1))
    judge.search_losses((0, 3))
    assert ration.search_losses((0, 3)) == judge.search_losses((0, 3))  # it was paid for, so it takes nothing
    assert ration.held_out_losses((0, 2)) == judge.held_out_losses((0, 2))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"^resamples: 10 given, valid is 100 to 100000$"):
        Portfolio(resamples=10)
    with pytest.raises(ValueError, match=r"^confidence: 1 given, valid is 0.5 <= confidence < 1$"):
        Portfolio(confidence=1)
