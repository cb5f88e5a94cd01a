import math

import pytest
import torch

from tasks.train_controller.learn.guard import LIMIT, MARGIN_L, Seen, calibrated, most_violations, strain_of


def seen(prompts, seed, *, noise=0.3, told=True):
    """Predictions of the strain that are off by a normal noise; a value that rises with the number of the action."""
    random = torch.Generator().manual_seed(seed)
    truth_NA = torch.randn(prompts, 4, generator=random, dtype=torch.float64)
    truth_NA[:, 0] = -5.0
    strain_NA = truth_NA + noise * torch.randn(prompts, 4, generator=random, dtype=torch.float64)
    value_NA = torch.tensor([1.0, 1.1, 1.3, 1.4], dtype=torch.float64).expand(prompts, -1)
    predicted_NA = strain_NA if told else strain_NA[torch.randperm(prompts, generator=random)]
    return Seen(value_NA=value_NA, strain_NA=predicted_NA, reward_NA=value_NA, rise_NA=0.05 * truth_NA.sinh())


def broken(guard, at):
    """The share of the prompts where the action that the guard leaves breaks the floor."""
    choice_N1 = guard.scores(at.value_NA, at.strain_NA).argmax(1, keepdim=True)
    return (at.rise_NA.gather(1, choice_N1) > 0.05).double().mean().item()


def test_the_strain_of_a_rise_that_just_meets_the_floor_is_the_limit():
    assert math.asinh(1) == LIMIT
    assert strain_of(torch.tensor([0.0, 0.02, 99.0], dtype=torch.float64), 0.02).tolist() == [
        0,
        pytest.approx(LIMIT),
        2.5,
    ]


@pytest.mark.parametrize(
    ("prompts", "target", "most"), [(100, 0.005, 0), (199, 0.005, 0), (398, 0.005, 0), (399, 0.005, 1), (99, 0.1, 9)]
)
def test_the_violations_that_are_suffered_keep_the_bound(prompts, target, most):
    assert most_violations(prompts, target) == most
    assert (most + 2) / (prompts + 1) > target  # one more would not


def test_it_is_the_smallest_margin_from_which_on_few_enough_break_the_floor():
    at = seen(60, 0)
    guard = calibrated(at, floor=0.05, target=0.05)
    assert guard.free_A.tolist() == [True, False, False, False]

    def count(margin):
        met_NA = at.strain_NA + margin * guard.spread_A <= LIMIT
        met_NA[:, 0] = True
        rows = [max((a for a in range(4) if met_NA[p, a]), key=lambda a: at.value_NA[p, a]) for p in range(60)]
        return sum(at.rise_NA[p, a].item() > 0.05 for p, a in enumerate(rows))

    counts = [count(margin) for margin in MARGIN_L]
    fine = [max(counts[level:]) <= 2 for level in range(len(counts))]
    assert guard.margin == MARGIN_L[fine.index(True)].item()
    assert guard.violations == count(guard.margin) == round(broken(guard, at) * 60)


def test_new_prompts_break_the_floor_as_seldom_as_was_promised():
    shares, bounds = [], []
    for seed in range(40):
        guard = calibrated(seen(200, seed), floor=0.05, target=0.02)
        shares.append(broken(guard, seen(500, 1000 + seed)))
        bounds.append(guard.bound)
    assert max(bounds) <= 0.02
    assert 0.002 < sum(shares) / 40 < 0.02  # and so seldom only because it has to be


def test_few_prompts_promise_less_and_say_so():
    guard = calibrated(seen(50, 3), floor=0.05, target=0.005)
    assert guard.violations == 0
    assert guard.bound == 1 / 51


def test_an_action_that_is_always_safe_may_be_free_where_nothing_can_be_foretold():
    blind = seen(300, 5, noise=0.0, told=False)
    blind.rise_NA[:, 1] = 0.01
    guard = calibrated(blind, floor=0.05, target=0.005)
    assert guard.free_A.tolist() == [True, True, False, False]
    assert broken(guard, blind) == 0
    assert guard.scores(blind.value_NA, blind.strain_NA).argmax(1).min() == 1


def test_none_is_free_even_where_it_is_foretold_to_be_bad():
    guard = calibrated(seen(60, 1), floor=0.05, target=0.005)
    scores_NA = guard.scores(torch.ones(2, 4), torch.full((2, 4), 2.5))
    assert scores_NA.tolist() == [[1.0, -math.inf, -math.inf, -math.inf]] * 2
