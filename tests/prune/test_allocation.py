import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from tasks.prune.allocation import Allocation, project, shift

COSTS = {
    "one cost": [1],
    "head groups and channels": [640, 6144],
    "linears": [16, 32, 64],
    "odd": [7, 10, 23],
    "too large to try all sums": [1_000_003, 1_500_007],
}


def case(seed, choices, most_items=12):
    """Items of random sizes, wants, bounds and costs, and a budget that the bounds allow."""
    random = np.random.default_rng(seed)
    count = int(random.integers(1, most_items + 1))
    sizes = random.integers(1, 200, count).tolist()
    shares = random.uniform(-0.2, 1.2, count).tolist()
    pairs = [sorted(random.integers(0, size + 1, 2).tolist()) for size in sizes]
    bounds = [(low, high) for low, high in pairs]
    costs = random.choice(choices, count).tolist()
    least = sum(cost * low for cost, (low, _) in zip(costs, bounds, strict=True))
    most = sum(cost * high for cost, (_, high) in zip(costs, bounds, strict=True))
    return shares, sizes, int(random.integers(least, most + 1)), {"bounds": bounds, "costs": costs}


def real_valued(shares, sizes, budget, bounds, costs):
    """The projection on real numbers, by bisection in float64."""
    wants, sizes, costs = np.array(shares) * sizes, np.array(sizes), np.array(costs)
    low, high = np.array(bounds, dtype=float).T
    left, right = -300.0, 300.0
    for _ in range(100):
        middle = (left + right) / 2
        if costs @ np.clip(wants + middle * sizes, low, high) < budget:
            left = middle
        else:
            right = middle
    return np.clip(wants + right * sizes, low, high)


@pytest.mark.parametrize("choices", COSTS.values(), ids=COSTS)
@pytest.mark.parametrize("seed", range(100))
def test_the_budget_is_met_within_the_bounds_and_next_to_the_real_numbers(seed, choices):
    shares, sizes, budget, limits = case(seed, choices)
    units = project(shares, sizes, budget, **limits)
    spent = int(np.dot(limits["costs"], units))
    assert budget - max(limits["costs"]) < spent <= budget
    if len(choices) == 1:
        assert spent == budget
    assert all(isinstance(each, int) for each in units)
    assert all(low <= each <= high for each, (low, high) in zip(units, limits["bounds"], strict=True))
    assert np.abs(units - real_valued(shares, sizes, budget, **limits)).max() < 1 + 1e-6
    in_shares = [each / size for each, size in zip(units, sizes, strict=True)]
    assert project(in_shares, sizes, budget, **limits) == units


@pytest.mark.parametrize("seed", range(50))
def test_of_all_ways_to_round_none_is_nearer_to_the_budget(seed):
    shares, sizes, budget, limits = case(seed, [7, 10, 23], most_items=8)
    costs, bounds = limits["costs"], limits["bounds"]
    wants = [Fraction(share) * size for share, size in zip(shares, sizes, strict=True)]
    real = shift(wants, sizes, budget, bounds, costs)
    assert sum(cost * each for cost, each in zip(costs, real, strict=True)) == budget
    sums = (np.dot(costs, units) for units in product(*({math.floor(each), math.ceil(each)} for each in real)))
    assert np.dot(costs, project(shares, sizes, budget, **limits)) == max(each for each in sums if each <= budget)


def test_a_hundred_million_weights_are_met_to_the_weight():
    sizes, shares = [67_108_864 + 3, 58_720_256, 1], [0.47, 0.53, 0.5]
    units = project(shares, sizes, 60_000_001)
    assert sum(units) == 60_000_001
    assert project(np.divide(units, sizes).tolist(), sizes, 60_000_001) == units


def test_by_hand():
    assert project([0.5, 0.5, 0.5], [3, 3, 3], 5) == [2, 2, 1]  # 5/3 each: of equal remainders the first go up
    assert project([0.2, 0.4, 0.6], [10, 10, 10], 12) == [2, 4, 6]
    assert project([0.2, 0.4, 0.6], [10, 10, 10], 15) == [3, 5, 7]
    assert project([0.2, 0.4, 0.6], [10, 10, 10], 15, bounds=[(0, 10), (0, 4), (0, 10)]) == [4, 4, 7]  # 3.5, 4, 7.5
    assert project([0.1, 0.5], [10, 100], 29) == [0, 29]  # -0.21 of each; the first is clipped
    assert project([0.5, 0.5], [2, 2], 11, costs=[4, 3]) == [2, 1]  # 11/7 each; 4 + 7 = 11, and 7 + 3 = 10
    assert project([], [], 0) == []


def test_what_cannot_be_met_says_what_can():
    with pytest.raises(ValueError, match=r"^budget: 21 given, the bounds allow 3 to 20$"):
        project([0.5, 0.5], [10, 10], 21, bounds=[(1, 10), (2, 10)])
    with pytest.raises(ValueError, match=r"^budget: 2 given, the bounds allow 3 to 20$"):
        project([0.5, 0.5], [10, 10], 2, bounds=[(1, 10), (2, 10)])
    with pytest.raises(ValueError, match=r"^bounds: 1 to 11 given for item 1, valid is within 0 to its 10 units$"):
        project([0.5, 0.5], [10, 10], 2, bounds=[(0, 1), (1, 11)])
    with pytest.raises(ValueError, match=r"^bounds: 0 to 0 given for item 0, valid is within 0 to its 0 units$"):
        project([0.5], [0], 0)
    with pytest.raises(ValueError, match=r"^shares: nan given for item 1, valid is a finite number$"):
        project([0.5, math.nan], [10, 10], 2)


@pytest.mark.parametrize("bad", [-0.1, 1, 1.5, math.nan])
def test_an_allocation_holds_sparsities(bad):
    with pytest.raises(ValueError, match=r"given for block 1, valid is 0 <= sparsity < 1"):
        Allocation(sparsities=(0.5, bad))
