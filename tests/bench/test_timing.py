"""The statistics of the benchmark."""

import math
import random
import statistics

import pytest

from bench.timing import calls_that_fill, interleave, paired_ratio


def test_a_constant_ratio_is_found_without_any_doubt_however_the_machine_wanders():
    fast = [0.1, 0.5, 0.2, 3.0]
    ratio = paired_ratio([3 * time for time in fast], fast)
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((3, 3, 3))


def test_the_interval_by_hand():
    ratio = paired_ratio([1.0, 2.0, 4.0], [1.0, 1.0, 1.0])  # logs 0, 1, 2 times log 2; t(0.975, 2) = 4.302653
    half = 4.302653 * math.log(2) / math.sqrt(3)
    expected = (2, 2 * math.exp(-half), 2 * math.exp(half))
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx(expected, rel=1e-6)


def test_swapping_the_sides_inverts_the_interval():
    one, other = [1.0, 1.3, 0.9], [2.0, 2.1, 2.2]
    ratio, inverse = paired_ratio(one, other), paired_ratio(other, one)
    assert (inverse.mean, inverse.low, inverse.high) == pytest.approx((1 / ratio.mean, 1 / ratio.high, 1 / ratio.low))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    draw = random.Random(0)
    covered = []
    for _ in range(2000):
        slow = [2 * math.exp(draw.gauss(0, 0.2)) for _ in range(5)]
        ratio = paired_ratio(slow, [1.0] * 5)
        covered.append(ratio.low <= 2 <= ratio.high)
    assert statistics.fmean(covered) == pytest.approx(0.95, abs=0.015)


def test_one_round_has_no_interval():
    with pytest.raises(ValueError, match="rounds"):
        paired_ratio([1.0], [1.0])


def test_sides_take_turns_and_every_run_is_prepared():
    order: list[str] = []
    sides = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    times = interleave(sides, rounds=3, prepare=lambda: order.append("-"), calls=2)
    assert "".join(order) == "-aa-bb" + "-bb-aa" + "-aa-bb"
    assert {name: len(each) for name, each in times.items()} == {"a": 3, "b": 3}


def test_calls_fill_the_time_asked_for():
    assert calls_that_fill(0.0, {"a": lambda: None}) == 1
    assert calls_that_fill(0.01, {"a": lambda: None}) > 100
