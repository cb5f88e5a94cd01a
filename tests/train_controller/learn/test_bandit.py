from dataclasses import replace

import pytest
import torch

from tasks.train_controller.learn.bandit import LinUCB, expanded
from tasks.train_controller.learn.guard import strain_of
from tasks.train_controller.learn.learner import Task
from tasks.train_controller.learn.policy import Standard
from tasks.train_controller.learn.reward import Reward
from tasks.train_controller.learn.trials import Trials, mean_reward
from tasks.train_controller.observation import HARDWARE_FEATURES
from tests.train_controller.made_up import ACTIONS, a_table

FLOOR = 0.05


class Watched(Trials):
    """Trials that note what was tried: (prompt, action) in their order."""

    def step(self, action):
        after = super().step(action)
        self.tried.append((after[-1]["prompt"], action))
        return after


def practised(learner, table, seed=0):
    world = Watched(table, FLOOR, learner.reward)
    world.tried = []
    task = Task(
        world=world,
        standard=Standard.of(table.state_PF, table.features),
        actions=len(table.actions),
        trials=learner.passes * len(table),
        floor=FLOOR,
        seed=seed,
    )
    return learner.practise(task), world.tried


@pytest.mark.parametrize("degree", [1, 2])
def test_the_weights_are_those_of_a_ridge_regression_on_what_was_tried(degree):
    table = a_table(60)
    learner = LinUCB(passes=3, degree=degree)
    known, tried = practised(learner, table)
    seen_PF = Standard.of(table.state_PF, table.features)(table.state_PF)
    prompt_PF = seen_PF.clone()
    prompt_PF[:, : len(HARDWARE_FEATURES)] = 0
    gain_PK, strain_PK = expanded(seen_PF, degree), expanded(prompt_PF, degree)
    features = table.state_PF.shape[1]
    assert gain_PK.shape[1] == 1 + features + (features * (features + 1) // 2 if degree == 2 else 0)
    penalty_K = torch.tensor([0.1] + [3.0] * features + [15.0] * (gain_PK.shape[1] - 1 - features), dtype=torch.float64)
    for action in range(len(ACTIONS)):
        rows = [prompt for prompt, chosen in tried if chosen == action]
        goals = table.ratio_PA[rows, action] - 1, strain_of(table.rise_PA[rows, action], FLOOR)
        for x_PK, goal_N, found_K in zip((gain_PK, strain_PK), goals, known.weights_2AK[:, action], strict=True):
            x_NK = x_PK[rows]
            exact_K = torch.linalg.solve(x_NK.T @ x_NK + torch.diag(penalty_K), x_NK.T @ goal_N)
            assert torch.allclose(found_K, exact_K, rtol=1e-8, atol=1e-10)


def test_no_action_is_tried_twice_on_a_prompt_before_all_were():
    _, tried = practised(LinUCB(passes=5), a_table(20))
    assert sorted(tried) == [(prompt, action) for prompt in range(20) for action in range(5)]


def test_the_bonus_is_what_makes_it_try():
    table, fresh = a_table(80), a_table(300, 1)

    def worth(bonus):
        known, tried = practised(LinUCB(passes=1, bonus=bonus), table)
        choice_P = known.predict(fresh.state_PF)[0].argmax(1)
        return mean_reward(fresh, FLOOR, Reward(), choice_P), {action for _, action in tried}

    assert worth(0.0) == (1.0, {0})  # it knows that "none" is worth 1 and of nothing else that it is worth anything
    reward, actions = worth(0.3)
    assert reward > 1.05
    assert actions == set(range(5))


def test_it_tries_what_may_be_good_more_often_than_what_is_known_to_be_bad():
    table = a_table(200)
    hopeless = replace(table, rise_PA=table.rise_PA.clone())
    hopeless.rise_PA[:, 4] = 9.0
    often, seldom = (
        sum(action == 4 for _, action in practised(LinUCB(passes=1), each)[1]) for each in (table, hopeless)
    )
    assert seldom < often / 2


def test_products_of_features_show_what_their_sum_does_not():
    x_N2 = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    assert expanded(x_N2, 2).tolist()[1] == [1, -1, 1, 1, -1, 1]
    assert expanded(x_N2, 1).tolist()[1] == [1, -1, 1]
