import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from tasks.train_controller.judge.regret import (
    FloorUnmet,
    baselines,
    best_fixed,
    check_floor,
    decisions,
    interval,
    oracle,
    summaries,
)
from tasks.train_controller.learn.reward import Reward
from tests.train_controller.made_up import a_table

FLOOR = 0.05
RATIO_PA = [[1.0, 1.1, 1.2], [1.0, 1.1, 1.3], [1.0, 1.1, 1.4], [1.0, 1.1, 1.5]]
RISE_PA = [[0.0, 0.01, 0.04], [0.0, 0.02, 0.30], [0.0, 0.06, 0.01], [0.0, 0.05, 0.09]]


def small():
    table = a_table(4)
    numbers = {"ratio_PA": RATIO_PA, "rise_PA": RISE_PA, "kl_PA": RISE_PA}
    tensors = {name: torch.tensor(rows, dtype=torch.float64) for name, rows in numbers.items()}
    return replace(table, actions=("none", "mild", "wild"), **tensors)


def rows_of(choices, policy="learned", seed=0, table=None):
    return decisions(policy, FLOOR, seed, torch.tensor(choices), table or small(), Reward())


def test_the_oracle_takes_the_best_that_meets_the_floor_of_each_prompt():
    assert oracle(small(), FLOOR, Reward()).tolist() == [2, 1, 2, 1]
    assert oracle(small(), 0.005, Reward()).tolist() == [0, 0, 0, 0]
    # Where every rise is paid for at 6 times its share, 0.02 costs more than 10 % of speed bring; 0.01 does not.
    assert oracle(small(), FLOOR, Reward(quality=6.0, tolerance=0.0)).tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize(
    ("floor", "target", "action"), [(0.05, 0.0, 0), (0.05, 0.25, 1), (0.06, 0.0, 1), (0.05, 0.5, 2), (0.3, 0.0, 2)]
)
def test_the_best_fixed_action_breaks_the_floor_on_few_enough_training_prompts(floor, target, action):
    assert best_fixed(small(), floor, target) == action


def test_a_floor_that_nothing_meets_is_refused_with_the_smallest_that_something_does():
    check_floor(small(), 0.01)
    said = "floor: 0.009 given, which no action but none meets on 1 of 4 prompts, valid is at least 0.01, "
    with pytest.raises(FloorUnmet, match=re.escape(f"{said}which mild meets")):
        check_floor(small(), 0.009)
    with pytest.raises(FloorUnmet, match=r"on 1 of 4 prompts, valid is one with milder actions$"):
        check_floor(replace(small(), rise_PA=small().rise_PA + 1.5), 0.5)
    alone = replace(
        small(), actions=("none",), **{name: torch.zeros(4, 1) for name in ("ratio_PA", "rise_PA", "kl_PA")}
    )
    with pytest.raises(FloorUnmet, match=r"floor: 0\.5 given, but there is no action beside none"):
        check_floor(alone, 0.5)


def test_a_floor_that_one_prompt_in_fifty_meets_by_chance_is_not_met():
    table = a_table(100)
    rise_PA = torch.full_like(table.rise_PA, 0.3)
    rise_PA[:, 0], rise_PA[[7, 60], 2] = 0.0, 0.001
    with pytest.raises(FloorUnmet, match=r"meets on 5 of 100 prompts, valid is at least 0\.3"):
        check_floor(replace(table, rise_PA=rise_PA), 0.05)
    rise_PA[[8, 9, 10], 2] = 0.04
    check_floor(replace(table, rise_PA=rise_PA), 0.05)


def test_a_decision_is_what_was_measured_and_how_much_better_the_oracle_is():
    rows = rows_of([2, 2, 0, 1])
    assert [row.action for row in rows] == ["wild", "wild", "none", "mild"]
    assert [row.ratio for row in rows] == [1.2, 1.3, 1.0, 1.1]
    assert [row.rise for row in rows] == [0.04, 0.3, 0.0, 0.05]
    assert [row.reward for row in rows] == pytest.approx([1.2, 1.3 - 3 * 0.25, 1.0, 1.1])
    assert [row.regret for row in rows] == pytest.approx([0, 1.1 - 0.55, 0.4, 0])


def test_a_summary_is_the_mean_over_prompts_and_seeds():
    fixed = rows_of([0] * 4, "best fixed")
    told = summaries(
        [*rows_of([2, 1, 2, 1], "oracle"), *fixed, *rows_of([2, 2, 0, 1]), *rows_of([1, 1, 1, 1], seed=1)],
        {"learned": 0.25},
    )
    best, same, learned = told
    assert [row.policy for row in told] == ["oracle", "best fixed", "learned"]
    assert (best.gain, best.oracle_share, best.regret) == (pytest.approx(0.8 / 4), 1.0, 0.0)
    assert (same.gain, same.gain_low, same.gain_high, same.oracle_share) == (0, 0, 0, 0)
    assert (learned.seeds, learned.prompts) == (2, 4)
    assert learned.gain == pytest.approx((0.2 + 0.3 + 0 + 0.1 + 4 * 0.1) / 8)
    assert learned.violations == 2 / 8  # prompt 1 of the first seed, prompt 2 of the second
    assert learned.oracle_share == pytest.approx(learned.gain / best.gain)
    assert (learned.decision_ms, best.decision_ms) == (0.25, None)
    assert learned.ratio_low <= learned.ratio <= learned.ratio_high


def test_of_what_the_oracle_may_gain_by_chance_there_is_no_share():
    best, _, learned = summaries(
        [*rows_of([2, 1, 2, 1], "oracle"), *rows_of([1] * 4, "best fixed"), *rows_of([2, 1, 1, 1])]
    )
    assert best.gain > 0 == best.gain_low
    assert best.oracle_share is learned.oracle_share is None


def test_what_was_answered_live_is_compared_with_what_was_answered_live():
    fixed, learned = rows_of([1] * 4, "best fixed"), rows_of([2] * 4)
    live = [replace(row, live=True, ratio=row.ratio + 0.2) for row in [*fixed, *learned]]
    told = {(row.policy, row.live): row.gain for row in summaries([*fixed, *learned, *live])}
    assert told["learned", True] == pytest.approx(told["learned", False])
    alone = summaries([*fixed, *[row for row in live if row.policy == "learned"]])
    assert alone[-1].gain == pytest.approx(told["learned", False] + 0.2)


def test_several_actions_for_one_prompt_count_by_their_shares():
    fixed = rows_of([1] * 4, "best fixed")
    often, seldom = rows_of([1] * 4), rows_of([2] * 4)
    mixed = [replace(row, share=0.75) for row in often[:2]] + [replace(row, share=0.25) for row in seldom[:2]]
    told = summaries([*fixed, *mixed, *often[2:]])[-1]
    assert told.prompts == 4
    assert told.gain == pytest.approx(0.25 * (0.1 + 0.2) / 4)
    assert told.violations == pytest.approx((0.25 + 1) / 4)  # prompt 1 by "wild", prompt 2 by both
    with pytest.raises(ValueError, match="rows: 7 of 'learned' for 1 seeds and 4 prompts given"):
        summaries([*fixed, *mixed, *often[1:]])


def test_rows_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match=r"rows: none of 'best fixed' at floor 0\.05 given"):
        summaries(rows_of([1] * 4))
    with pytest.raises(ValueError, match="rows: 7 of 'learned' for 2 seeds and 4 prompts given, valid is one for each"):
        summaries([*rows_of([1] * 4, "best fixed"), *rows_of([1] * 4)[:3], *rows_of([1] * 4, seed=1)])
    with pytest.raises(ValueError, match="rows: 'best fixed' has none of prompt 0-3"):
        summaries([*rows_of([1] * 4, "best fixed")[:3], *rows_of([1] * 4)])


def test_intervals_hold_the_truth_as_often_as_they_say():
    random = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        prompt_P = random.normal(0.3, 1.0, size=30)  # what is common to all seeds of a prompt
        low, high = interval(prompt_P + random.normal(0, 0.3, size=(5, 30)), 300, trial)
        held += low <= 0.3 <= high
    assert 0.90 <= held / 200 <= 0.99


def test_the_same_rows_give_the_same_intervals_and_more_prompts_narrower_ones():
    def width(prompts):
        value_SP = np.random.default_rng(1).normal(size=(3, prompts))
        assert interval(value_SP, 500, 7) == interval(value_SP, 500, 7)
        low, high = interval(value_SP, 500, 7)
        return high - low

    assert width(400) < 0.6 * width(50)


def test_those_who_learn_nothing_are_all_there():
    train, test = a_table(50), a_table(40, 1)
    chosen = baselines(train, test, FLOOR, Reward(), 3, 0.1)
    assert list(chosen) == ["oracle", "best fixed", "random", "dense"]
    assert torch.equal(chosen["oracle"], oracle(test, FLOOR, Reward()))
    assert set(chosen["best fixed"].tolist()) == {best_fixed(train, FLOOR, 0.1)}
    assert not chosen["dense"].any()
    assert set(chosen["random"].tolist()) == set(range(5))
    assert torch.equal(chosen["random"], baselines(train, test, FLOOR, Reward(), 3, 0.1)["random"])
    assert not torch.equal(chosen["random"], baselines(train, test, FLOOR, Reward(), 4, 0.1)["random"])
