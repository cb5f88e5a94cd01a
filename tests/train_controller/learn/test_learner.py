from dataclasses import replace

import pytest
import torch

from tasks.train_controller.judge.regret import best_fixed, oracle
from tasks.train_controller.learn.bandit import LinUCB
from tasks.train_controller.learn.dqn import DoubleDQN
from tasks.train_controller.learn.learners import ABLATIONS, LEARNERS, reweighted
from tasks.train_controller.learn.reward import Reward
from tasks.train_controller.observation import FEATURES
from tests.train_controller.made_up import a_table, at_load

FLOOR = 0.05
GOOD = [LinUCB(parts=3), DoubleDQN(parts=3)]
QUICK = [LinUCB(passes=1, parts=2), DoubleDQN(passes=2, parts=2, hidden=8, every=8)]


def named(learner):
    return learner.name


def judged(policy, train, fresh):
    """The mean gain over the best fixed action, that of the oracle, and the share of prompts that break the floor."""
    chosen_P1, best_P1 = policy.choices(fresh.state_PF)[:, None], oracle(fresh, FLOOR, Reward())[:, None]
    fixed_P1 = fresh.ratio_PA[:, [best_fixed(train, FLOOR, 0.005)]]
    gain, most = ((fresh.ratio_PA.gather(1, each) - fixed_P1).mean().item() for each in (chosen_P1, best_P1))
    return gain, most, (fresh.rise_PA.gather(1, chosen_P1) > FLOOR).double().mean().item()


@pytest.mark.parametrize("learner", GOOD, ids=named)
def test_it_recovers_half_of_what_the_oracle_gains_and_keeps_the_floor(learner):
    train, fresh = a_table(250), a_table(1500, 1)
    gain, most, broken = judged(learner.learn(train, FLOOR, 0), train, fresh)
    assert most > 0.1
    assert gain > most / 2
    assert broken <= 0.01


@pytest.mark.parametrize("learner", GOOD, ids=named)
def test_the_floor_is_kept_on_a_machine_that_was_never_so_idle_or_so_busy(learner):
    train, fresh = at_load(a_table(250), 0.45, 0.65), a_table(1500, 1)
    policy = learner.learn(train, FLOOR, 0)
    idle, busy = (at_load(fresh, load, load) for load in (0.0, 1.0))
    (value_PA, strain_PA), (other_PA, same_PA) = (policy.predictor.predict(each.state_PF) for each in (idle, busy))
    assert torch.equal(strain_PA, same_PA)
    assert not torch.equal(value_PA, other_PA)  # the speed may depend on it
    for each in (idle, busy):
        gain, _, broken = judged(policy, train, each)
        assert gain > 0
        assert broken <= learner.target


@pytest.mark.parametrize("learner", GOOD, ids=named)
def test_from_shuffled_features_nothing_is_gained(learner):
    train, fresh = a_table(250, shuffled=True), a_table(1500, 1, shuffled=True)
    gain, most, broken = judged(learner.learn(train, FLOOR, 0), train, fresh)
    assert gain < 0.05 * most
    assert broken <= 0.02


@pytest.mark.parametrize("learner", QUICK, ids=named)
def test_learning_is_told_and_the_held_out_prompts_teach_nothing(learner):
    told = []
    train, held_out = a_table(40), a_table(20, 1)
    policy = learner.learn(train, FLOOR, 3, held_out, told.append)
    alone = learner.learn(train, FLOOR, 3)
    assert all(torch.equal(alone.predictor.tensors[name], each) for name, each in policy.predictor.tensors.items())
    assert (told[-1].step, told[-1].learner, told[-1].learner_seed) == (learner.passes * 40, learner.name, 3)
    assert [row.step for row in told] == sorted({row.step for row in told})
    assert all(0 < row.held_out_reward <= 1.6 and row.reward <= 1.6 for row in told)
    assert (told[-1].epsilon is None) == (learner.name == "bandit")


@pytest.mark.parametrize("learner", QUICK, ids=named)
def test_features_that_are_left_out_make_no_difference_ever(learner):
    train, fresh = a_table(60), a_table(50, 1)
    for names in ABLATIONS.values():
        policy = learner.learn(train.without(names), FLOOR, 0)
        other_PF = fresh.state_PF.clone()
        other_PF[:, [FEATURES.index(name) for name in names]] = 0.5
        for one_F, other_F in zip(fresh.state_PF, other_PF, strict=True):
            assert torch.equal(policy.scores_A(one_F), policy.scores_A(other_F))


def test_a_sweep_has_each_reward_once():
    learners = reweighted(LinUCB(passes=2))
    rewards = {each.reward for each in learners.values()}
    assert len(rewards) == len(learners) == 7
    assert all(replace(each, reward=Reward()) == LinUCB(passes=2) for each in learners.values())


@pytest.mark.parametrize("name", LEARNERS)
def test_what_makes_no_sense_is_refused(name):
    with pytest.raises(ValueError, match="target: 0 given, valid is above 0 and below 1"):
        LEARNERS[name](target=0)
    with pytest.raises(ValueError, match="parts: 1 given, valid is 2 or more"):
        LEARNERS[name](parts=1)
    with pytest.raises(ValueError, match=r"floor: 0\.0 given, valid is above 0"):
        LEARNERS[name]().learn(a_table(9), 0.0, 0)
    with pytest.raises(ValueError, match="prompts: 4 given, valid is at least 5"):
        LEARNERS[name]().learn(a_table(4), FLOOR, 0)
