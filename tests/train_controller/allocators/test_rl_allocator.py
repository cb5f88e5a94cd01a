import numpy as np
import pytest
import torch

from tasks.train_controller.allocators.adapt import AdaptPruner
from tasks.train_controller.allocators.problem import Problem
from tasks.train_controller.allocators.random_search import RandomSearch
from tasks.train_controller.allocators.rl_allocator import Policy, RLAllocator, draw, observe
from tests.train_controller.allocators.judges import (
    MadeUp,
    a_problem,
    additive,
    all_levels,
    interacting,
    some_features,
)

WEIGHTS = ("accuracy", "flops", "bytes", "peak", "kv")


def interval(values):
    """The 95 % interval of the mean."""
    half = 1.96 * np.std(values, ddof=1) / len(values) ** 0.5
    return np.mean(values) - half, np.mean(values) + half


def relative(searcher, seeds, looks, *, shuffled=False, make=additive, power=()):
    """By how much of uniform's loss what is found differs from it, on problems whose parts cost alike."""
    outcomes = []
    for seed in range(seeds):
        problem = a_problem(3, 6, share=0.5, ffn_cost=1)
        loss = make(problem, seed, *power)
        judge = MadeUp(shuffle(loss, problem, seed) if shuffled else loss, looks=looks, seed=seed)
        found = searcher.search(problem, judge, some_features(problem, seed), seed=seed)
        outcomes.append(loss(found.levels) / loss(problem.uniform()) - 1)
    return np.array(outcomes)


def shuffle(loss, problem, seed):
    """Each levels get the loss of others, drawn once and for all."""

    def of_others(levels):
        random = np.random.default_rng([seed, *levels])
        return loss(problem.project(random.uniform(size=len(levels)).tolist()))

    of_others.problem = problem
    return of_others


@pytest.mark.parametrize("descent", [0, 0.75])
def test_it_is_better_than_uniform_and_adapt_pruner_where_there_is_something_to_learn(descent):
    learned = relative(RLAllocator(descent=descent), 6, 50, make=interacting)
    told = relative(AdaptPruner(), 6, 50, make=interacting)
    assert interval(learned)[1] < -0.1
    assert interval(learned - told)[1] < 0


def test_it_finds_the_best_of_a_small_problem():
    problem = a_problem(2, 3, share=0.5)
    loss = interacting(problem)
    found = RLAllocator().search(problem, MadeUp(loss), some_features(problem))
    assert loss(found.levels) <= min(map(loss, all_levels(problem)))


def test_the_policy_itself_becomes_better_and_surer():
    problem = a_problem(4, 6, share=0.5)
    judge = MadeUp(additive(problem, 2), looks=250)
    moves = RLAllocator(descent=0).search(problem, judge, some_features(problem)).moves[1:]
    early, late = (moves[part] for part in (slice(0, 27), slice(90, 117)))
    assert np.mean([move.reward for move in late]) > np.mean([move.reward for move in early]) + 0.05
    assert late[-1].entropy < early[0].entropy


def test_shuffled_rewards_teach_nothing():
    # Losses are linear in the rungs and all parts cost alike: whoever knows nothing is on average as good as uniform.
    linear = {"seeds": 12, "looks": 40, "power": (1.0,)}
    learned = relative(RLAllocator(), **linear)
    shuffled = relative(RLAllocator(), shuffled=True, **linear)
    by_chance = relative(RandomSearch(), shuffled=True, **linear)
    assert interval(learned)[1] < -0.2
    assert interval(shuffled)[0] < 0 < interval(shuffled)[1]
    assert interval(shuffled - by_chance)[0] < 0 < interval(shuffled - by_chance)[1]


def priced_problem():
    """Four parts, each of which alone is dear in one of the costs."""
    parts = a_problem(2).parts
    saves = {"parameters": (1, 1, 1, 1), "flops": (9, 1, 1, 1), "bytes": (1, 9, 1, 1), "kv": (3, 0, 1, 0)}
    totals = {cost: 8 * sum(each) for cost, each in saves.items()}
    peaks = ((9, 0), (9, 0), (9, 0), (16, 2))
    return Problem(parts=parts, rungs=(4,) * 4, saves=saves, totals=totals, peaks=peaks, cost="parameters", budget=8)


def metric_of(weight, problem, levels, loss):
    if weight == "accuracy":
        return -loss(levels)
    return -problem.peak(levels) if weight == "peak" else problem.saved(levels, weight)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_each_weight_moves_its_own_metric(weight):
    problem = priced_problem()
    balance_P = np.array([2.0, 1.6, 1.2, 3.0])

    def loss(levels):
        return float(balance_P @ np.divide(levels, 4) ** 2)

    others = {"accuracy": 0.05, "flops": 1.0} if weight == "accuracy" else {"accuracy": 1.0}
    metrics = []
    for value in (0.05, 0.5, 2.0, 20.0):
        searcher = RLAllocator(**others | {weight: value})
        found = searcher.search(problem, MadeUp(loss, problem=problem), some_features(problem))
        metrics.append(metric_of(weight, problem, found.levels, loss))
        added = {levels: loss(levels) for levels in all_levels(problem)}
        best = max(searcher.reward(problem, levels, each) for levels, each in added.items())
        assert searcher.reward(problem, found.levels, loss(found.levels)) == pytest.approx(best)
    assert metrics == sorted(metrics)
    assert metrics[-1] > metrics[0]


def test_the_reward_by_hand():
    problem, levels = priced_problem(), (4, 2, 1, 1)
    # saved: flops 36+2+1+1 of 96, bytes 4+18+1+1 of 96, kv 12+1 of 32; the peak is 14 of 16
    weights = {"accuracy": 2.0, "flops": 3.0, "bytes": 5.0, "peak": 8.0, "kv": 7.0}
    expected = -2 * 0.25 + 3 * 40 / 96 + 5 * 24 / 96 + 7 * 13 / 32 + 8 * (1 - 14 / 16)
    assert RLAllocator(**weights).reward(problem, levels, 0.25) == pytest.approx(expected)


@pytest.mark.parametrize("weight", ["flops", "bytes", "peak"])
def test_a_weight_for_a_cost_that_is_not_there_is_refused(weight):
    with pytest.raises(ValueError, match=rf"^{weight}: 0.5 given, the problem has only kv, parameters$"):
        RLAllocator(**{weight: 0.5}).search(a_problem(), MadeUp(lambda levels: 0.0), {})


def test_a_weight_for_what_all_levels_save_alike_is_refused():
    costs = (2, 3, 2, 3)
    saves = {"parameters": costs, "bytes": tuple(4 * each for each in costs), "flops": (2, 3, 2, 4)}
    given = {"rungs": (4,) * 4, "saves": saves, "totals": {cost: 5 * sum(each) for cost, each in saves.items()}}
    problem = Problem(parts=a_problem(2).parts, **given, cost="parameters", budget=20)
    RLAllocator(flops=1.0).check(problem)
    with pytest.raises(ValueError, match=r"^bytes: 1.0 given, but all levels of this budget of parameters save it"):
        RLAllocator(bytes=1.0).check(problem)


@pytest.mark.parametrize("field", [*WEIGHTS, "entropy", "descent", "rate", "spread", "updates", "batch", "hidden"])
def test_bad_input_is_refused(field):
    with pytest.raises(ValueError, match=rf"^{field}: -1 given, valid is"):
        RLAllocator(**{field: -1})
    with pytest.raises(ValueError, match=rf"^{field}: 10000000.0 given, valid is"):
        RLAllocator(**{field: 1e7})
    with pytest.raises(ValueError, match=rf"^{field}: nan given, valid is"):
        RLAllocator(**{field: float("nan")})


def test_a_reward_that_nothing_changes_is_refused():
    with pytest.raises(ValueError, match=r"^accuracy: 0 given, and no other weight; valid is one of accuracy, flops,"):
        RLAllocator(accuracy=0)


def test_every_part_looks_different_and_columns_are_standardised():
    problem = a_problem(3, 4)
    seen_PF = observe(problem, some_features(problem))
    assert seen_PF.shape == (6, 5 + 6)
    assert len(torch.unique(seen_PF, dim=0)) == 6
    assert seen_PF[:, :5].mean(0).abs().max() < 1e-9
    assert seen_PF[:, :5].std(0, correction=0) == pytest.approx(1)
    assert observe(problem, {}).shape == (6, 6)


def test_samples_come_from_the_distribution_about_the_start():
    problem = a_problem(2, 5)
    generator = torch.Generator().manual_seed(0)
    policy = Policy(problem, observe(problem, {}), (1, 2, 3, 5), 4, 0.2, generator)
    chances = policy()
    assert chances.probs.argmax(1).tolist() == [1, 2, 3, 5]
    # 0.2 of five rungs is one: normal weights exp(-distance² / 2) on whole rungs
    expected_R = torch.exp(-((torch.arange(6) - 2.0) ** 2) / 2)
    assert chances.probs[1].tolist() == pytest.approx((expected_R / expected_R.sum()).tolist())
    sample_NP = draw(chances, 4000, generator)
    assert sample_NP.shape == (4000, 4)
    assert torch.bincount(sample_NP[:, 1], minlength=6) / 4000 == pytest.approx(chances.probs[1].tolist(), abs=0.03)
