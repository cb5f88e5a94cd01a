import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from tasks.train_controller.env import PromptEnv
from tasks.train_controller.learn.reward import Reward
from tasks.train_controller.learn.trials import Trials, mean_reward
from tests.train_controller.made_up import a_table


@pytest.mark.filterwarnings("error")
def test_gymnasium_finds_nothing_to_say():
    check_env(PromptEnv(a_table(7), floor=0.05), skip_render_check=True)


def test_a_step_pays_what_the_table_says_and_ends_the_episode():
    table = a_table(7)
    env = PromptEnv(table, floor=0.05, reward=Reward(tolerance=0.0))
    state_F, info = env.reset(seed=3)
    row = info["prompt"]
    assert state_F.tolist() == pytest.approx(table.state_PF[row].tolist())
    _, reward, terminated, truncated, info = env.step(np.int64(2))
    ratio, rise = table.ratio_PA[row, 2].item(), table.rise_PA[row, 2].item()
    assert (info["ratio"], info["rise"], terminated, truncated) == (ratio, rise, True, False)
    assert reward == pytest.approx(ratio - min(1.0, 3 * rise))


def test_a_seed_is_an_order_in_which_every_prompt_comes_before_any_comes_again():
    def order(seed):
        env = PromptEnv(a_table(7), floor=0.05)
        return [env.reset(seed=seed if first else None)[1]["prompt"] for first in (True, *[False] * 13)]

    assert sorted(order(1)[:7]) == sorted(order(1)[7:]) == list(range(7))
    assert order(1) == order(1)
    assert order(1) != order(2)


def test_the_live_mode_asks_for_each_outcome():
    asked = []

    def measure(prompt, action):
        asked.append((prompt, action))
        return 1.25, 0.5

    env = PromptEnv(a_table(7), floor=0.1, measure=measure)
    row = env.reset(seed=0)[1]["prompt"]
    _, reward, _, _, info = env.step(np.int64(4))
    assert asked == [(row, 4)]
    assert (info["ratio"], info["rise"]) == (1.25, 0.5)
    assert reward == pytest.approx(1.25 - 1.0)  # 3 · (0.5 − 0.1) is more than can be lost


def test_it_comes_in_the_same_order_as_the_trials_behind_it():
    env, trials = PromptEnv(a_table(7), floor=0.05), Trials(a_table(7), 0.05, Reward())
    for seed in (5, *[None] * 9):
        assert env.reset(seed=seed)[1] == trials.reset(seed=seed)[1]


def test_what_makes_no_sense_is_refused():
    env = PromptEnv(a_table(7), floor=0.05)
    with pytest.raises(ValueError, match="step: no prompt waits"):
        env.step(np.int64(0))
    env.reset()
    with pytest.raises(ValueError, match="action: 5 given, valid is 0 to 4"):
        env.step(np.int64(5))
    env.step(np.int64(0))
    with pytest.raises(ValueError, match="step: no prompt waits"):
        env.step(np.int64(0))
    with pytest.raises(ValueError, match="options: prompt given, valid is none"):
        env.reset(options={"prompt": 1})


def test_the_mean_reward_is_that_of_the_chosen_actions():
    table = a_table(4)
    by_hand = [
        Reward().once(float(table.ratio_PA[p, a]), float(table.rise_PA[p, a]), 0.02) for p, a in enumerate([0, 4, 2, 1])
    ]
    assert mean_reward(table, 0.02, Reward(), torch.tensor([0, 4, 2, 1])) == pytest.approx(sum(by_hand) / 4)
