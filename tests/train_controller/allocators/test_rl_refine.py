import numpy as np
import pytest
import torch

from tasks.train_controller.allocators.rl_allocator import observe
from tasks.train_controller.allocators.rl_refine import STARTS, Pairs, RLRefine
from tasks.train_controller.allocators.search import Rises
from tests.train_controller.allocators.judges import MadeUp, a_problem, additive, all_levels, some_features


def gate(judge, levels):
    return np.mean(judge.search_losses(levels)[1::2])


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("seed", range(5))
def test_it_is_never_worse_than_its_start_at_the_gate(start, seed):
    problem = a_problem(3, 5)
    judge = MadeUp(additive(problem, seed), noise=0.3, seed=seed, looks=60)
    features = some_features(problem, seed)
    begin = STARTS[start]().search(problem, judge, features).levels
    found = RLRefine(start=start).search(problem, judge, features, seed=seed)
    assert gate(judge, found.levels) <= gate(judge, begin)


def test_what_is_accepted_lowers_the_gate_and_the_rest_is_rolled_back():
    problem = a_problem(3, 5)
    judge = MadeUp(additive(problem), noise=0.1)
    found = RLRefine(start="uniform").search(problem, judge, {})
    asked = list(judge.seen)
    assert len(asked) == len(found.moves)
    current = asked[0]
    assert found.moves[0].accepted
    for levels, move in zip(asked[1:], found.moves[1:], strict=True):
        changed = np.subtract(levels, current)
        assert np.flatnonzero(changed).size == 2
        assert move.levels == levels
        assert (move.donor, move.receiver) == (problem.parts[changed.argmax()], problem.parts[changed.argmin()])
        assert move.reward == pytest.approx(np.subtract(judge.seen[current], judge.seen[levels])[0::2].mean())
        fall_W = np.subtract(judge.seen[current], judge.seen[levels])[1::2]
        assert move.accepted == (fall_W.mean() > np.std(fall_W, ddof=1) / len(fall_W) ** 0.5)
        if move.accepted:
            current = levels
        assert move.best == pytest.approx(np.mean(judge.seen[current]))
    assert current == found.levels
    assert {move.accepted for move in found.moves} == {True, False}


def test_it_comes_to_where_no_move_pays():
    problem = a_problem(2, 4, share=0.5)
    loss = additive(problem)
    found = RLRefine(start="uniform").search(problem, MadeUp(loss), {})
    pairs = [(donor, receiver) for donor in range(4) for receiver in range(4)]
    moved = [problem.moved(found.levels, *pair) for pair in pairs]
    assert all(loss(levels) >= loss(found.levels) for levels in moved if levels is not None)
    assert loss(found.levels) < loss(problem.uniform())


def test_from_the_best_it_goes_nowhere():
    problem = a_problem(2, 4, share=0.5)
    loss = additive(problem)
    best = min((levels for levels in all_levels(problem)), key=loss)
    judge = MadeUp(lambda levels: loss(levels) if levels == best else 9.0, problem=problem)
    found = RLRefine(start=best).search(problem, judge, {})
    assert found.levels == best
    assert [move.accepted for move in found.moves] == [True] + [False] * (len(found.moves) - 1)
    assert len(found.moves) > 1


def test_without_looks_it_is_its_start():
    problem = a_problem(2, 4, share=0.5)
    assert RLRefine(start=(0, 4, 4, 0)).search(problem, MadeUp(lambda levels: 0.0, looks=0), {}).levels == (0, 4, 4, 0)


class Level(MadeUp):
    """All slopes are alike, so that a policy has nothing to go by but what it learns."""

    def _rises(self, levels, fold):
        rises = super()._rises(levels, fold)
        return Rises(loss=rises.loss, parts=[np.zeros_like(rise_R) for rise_R in rises.parts])


def test_before_it_learns_it_goes_by_the_slopes():
    problem = a_problem(2, 4)
    policy = Pairs(problem, observe(problem, {}), 4, torch.Generator().manual_seed(0))
    pairs = [(0, 1), (1, 0), (2, 3)]
    assert policy((1, 1, 1, 1), pairs).probs.tolist() == pytest.approx([1 / 3] * 3)
    policy.prefer(np.array([1.0, 3.0, 2.0, 2.0]))  # parts 2 and 3 are at the mean, 0 and 1 are √2 deviations off
    odds = policy((1, 1, 1, 1), pairs).probs
    assert (odds[0] / odds[2]).item() == pytest.approx(np.exp(2 * 2**0.5))  # 0 gives more, 1 gets back
    assert (odds[1] / odds[2]).item() == pytest.approx(np.exp(-2 * 2**0.5))


def test_the_policy_learns_which_pairs_pay():
    # Only rungs of the first block hurt: of pairs that do not give back there, none pays.
    problem = a_problem(6, 12, ffn_cost=1)
    needed = []
    for seed in range(4):
        judge = Level(lambda levels: levels[0] + levels[1] + sum(levels) / 100, looks=40, seed=seed, problem=problem)
        learning = RLRefine(start="uniform", stride=0.01, rate=0.05).search(problem, judge, {}, seed=seed)
        accepted = [move.accepted for move in learning.moves[1:]]
        first = next(index for index, each in enumerate(accepted) if sum(accepted[: index + 1]) == 5)
        needed.append(first)
    assert np.mean(needed) < 5 / (2 * 10 / 132)  # moves that chance alone would need


@pytest.mark.parametrize("field", ["steps", "patience", "hidden", "margin", "entropy", "stride", "rate"])
def test_bad_input_is_refused(field):
    with pytest.raises(ValueError, match=rf"^{field}: -1 given, valid is"):
        RLRefine(**{field: -1})
    with pytest.raises(ValueError, match=rf"^{field}: 10000000.0 given, valid is"):
        RLRefine(**{field: 1e7})


def test_bad_starts_and_too_few_windows_are_refused():
    with pytest.raises(ValueError, match=r"^start: evolution given, valid is uniform, adapt, or levels$"):
        RLRefine(start="evolution")
    problem = a_problem(1, 4)
    for levels in ((0, 0), (4,), (9, 0)):
        with pytest.raises(ValueError, match=r"^start: .* does not meet the budget"):
            RLRefine(start=levels).search(problem, MadeUp(lambda levels: 0.0), {})
    with pytest.raises(ValueError, match=r"^windows: 3 given, valid is 4 or more"):
        RLRefine(start="uniform").search(problem, MadeUp(lambda levels: 0.0, windows=3), {})
