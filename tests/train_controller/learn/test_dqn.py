import pytest
import torch

from tasks.train_controller.env import PromptEnv
from tasks.train_controller.learn.dqn import DoubleDQN, Replay, double_target
from tasks.train_controller.learn.learner import Task
from tasks.train_controller.learn.policy import Standard
from tasks.train_controller.learn.reward import Reward
from tasks.train_controller.learn.trials import Trials
from tests.train_controller.made_up import a_table

REWARD = {(0, 0): 0.3, (0, 1): 0.0, (1, 0): 0.1, (1, 1): 0.2, (2, 0): 1.0, (2, 1): -0.5}  # (state, action)


class TwoSteps:
    """From state 0 the action 0 leads to state 1 and pays at once; 1 leads to state 2, which pays more, and later."""

    def reset(self, *, seed=None):
        self.state = 0
        return self.seen, {}

    def step(self, action):
        paid, ended = REWARD[self.state, action], self.state > 0
        self.state = 0 if ended else 1 + action
        return self.seen, paid, ended, False, {"rise": 0.0}

    @property
    def seen(self):
        return torch.eye(3)[self.state]


def task(world, features, actions, trials, seed=0, **more):
    zeros_F, ones_F = torch.zeros(features).double(), torch.ones(features).double()
    standard = Standard(center_F=zeros_F, scale_F=ones_F, prompt_F=ones_F)
    return Task(world=world, standard=standard, actions=actions, trials=trials, floor=0.05, seed=seed, **more)


def test_the_target_is_the_reward_and_what_follows_of_the_action_that_the_other_network_prefers():
    online_NA = torch.tensor([[1.0, 2.0], [5.0, 4.0], [0.0, 1.0]], dtype=torch.float64)
    target_NA = torch.tensor([[10.0, 7.0], [3.0, 9.0], [8.0, 6.0]], dtype=torch.float64)
    reward_N, going_N = torch.tensor([0.5, 0.25, 1.0]).double(), torch.tensor([1.0, 1.0, 0.0]).double()
    goal_N = double_target(reward_N, going_N, online_NA, target_NA, 0.5)
    assert goal_N.tolist() == [0.5 + 0.5 * 7, 0.25 + 0.5 * 3, 1.0]  # the last has ended: nothing follows


@pytest.mark.parametrize("gamma", [0.0, 0.9])
def test_in_a_world_of_two_steps_it_finds_the_values_of_the_optimum(gamma):
    learner = DoubleDQN(gamma=gamma, hidden=16, batch=32, every=4, copied=20, rate=1e-2, decay=0.0, least_epsilon=1.0)
    network = learner.practise(task(TwoSteps(), 3, 2, 1600))
    later = [max(REWARD[state, action] for action in (0, 1)) for state in (1, 2)]  # of the states that follow
    optimum = [[REWARD[0, action] + gamma * later[action] for action in (0, 1)]]
    optimum += [[REWARD[state, action] for action in (0, 1)] for state in (1, 2)]
    found = network.predict(torch.eye(3))[0]
    assert found.tolist() == [pytest.approx(row, abs=0.03) for row in optimum]
    assert int(found[0].argmax()) == (1 if gamma else 0)  # only who looks ahead goes where more is paid


def test_through_gymnasium_it_learns_the_same():
    table = a_table(12)
    table.state_PF.copy_(table.state_PF.float())  # as Gymnasium hands them on
    learner = DoubleDQN(hidden=8, batch=8, every=4, exploring=0.5)
    worlds = Trials(table, 0.05, Reward()), PromptEnv(table, floor=0.05)
    one, other = (learner.practise(task(world, 13, 5, 120, seed=4)) for world in worlds)
    assert all(torch.equal(one.tensors[name], each) for name, each in other.tensors.items())
    assert min(head.weight.abs().max() for head in (one.value, one.strain)) > 0  # it did learn


def test_the_share_of_drawn_actions_falls_in_a_line_and_then_stays():
    learner = DoubleDQN(epsilon=1.0, least_epsilon=0.2, exploring=0.5)
    assert [learner.epsilon_at(trial, 100) for trial in (0, 25, 50, 100)] == pytest.approx([1.0, 0.6, 0.2, 0.2])


def test_the_replay_forgets_what_is_oldest_and_draws_only_what_is_there():
    replay = Replay(3, 1)
    random = torch.Generator().manual_seed(0)
    replay.add(torch.zeros(1), 0, 0.0, 0.0, torch.zeros(1), True)
    assert set(replay.draw(20, random).tolist()) == {0}
    for number in range(1, 5):
        replay.add(torch.full((1,), number), number, float(number), 0.0, torch.zeros(1), number % 2 == 0)
    assert sorted(replay.action_R.tolist()) == [2, 3, 4]
    assert sorted(zip(replay.reward_R.tolist(), replay.going_R.tolist(), strict=True)) == [(2, 0), (3, 1), (4, 0)]
    assert set(replay.draw(50, random).tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"gamma": 1.5}, "gamma: 1.5 given, valid is 0 to 1"),
        ({"epsilon": -0.1}, "epsilon: -0.1 given, valid is 0 to 1"),
        ({"rate": 0.0}, "rate: 0.0 given, valid is above 0"),
        ({"batch": 0}, "batch: 0 given, valid is 1 or more"),
        ({"passes": 0}, "passes: 0 given, valid is 1 or more"),
    ],
)
def test_hyper_parameters_are_checked(words, says):
    with pytest.raises(ValueError, match=says):
        DoubleDQN(**words)
