import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from tasks.train_controller.act.actions import Action, parse_actions
from tasks.train_controller.env import PromptEnv
from tasks.train_controller.learn.reward import Reward
from tasks.train_controller.learn.table import table_of
from tasks.train_controller.learn.trials import Trials, mean_reward
from tasks.train_controller.measure.episodes import EncodedPrompt, measure_episodes
from tasks.train_controller.measure.live_prompts import LivePrompts
from tasks.train_controller.observation import Hardware
from tests.cases import batches, llama
from tests.prune.structure.profiled import built
from tests.train_controller.made_up import a_table

PROMPTS = [
    EncodedPrompt(prompt=name, source="docs", split="train", **dict(zip(("ids_1T", "reference_1R"), ids, strict=True)))
    for name, ids in (("a" * 16, batches((1, 12), (1, 6))), ("b" * 16, batches((1, 20), (1, 9), seed=1)))
]


class Growing:
    """A reader whose CPU is busier each time."""

    reads = 0

    def read(self):
        self.reads += 1
        return Hardware(cpu_use=self.reads / 100, memory_free=0.5)


@pytest.fixture(scope="module")
def model():
    return llama()


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


def test_the_live_mode_sees_the_machine_and_really_answers(model):
    profiles, reader = built(model), Growing()
    actions = parse_actions(["ffn", "none@window:0.5"], profiles.names)
    how = {"reader": reader, "new_tokens": 3, "repetitions": 2}
    measured = [*measure_episodes(profiles, PROMPTS, actions, **how)]
    table = table_of([row for row, _ in measured], [each for _, own in measured for each in own], "train")
    env = PromptEnv(LivePrompts(profiles=profiles, prompts=PROMPTS, choices=actions, **how), floor=0.1)
    busy, asked = reader.reads, {}
    for turn in range(2 * len(actions)):
        state_F, info = env.reset(seed=5 if turn == 0 else None)
        row, action = info["prompt"], turn // len(PROMPTS)
        assert state_F[6:].tolist() == pytest.approx(table.state_PF[row, 6:].tolist())
        assert state_F[0] == pytest.approx(reader.reads / 100)  # the machine as it is by then
        _, reward, terminated, _, info = env.step(np.int64(action))
        assert info["rise"] == pytest.approx(table.rise_PA[row, action].item(), abs=1e-12)
        assert info["ratio"] == 1.0 if action == 0 else info["ratio"] > 0
        assert reward == pytest.approx(Reward().once(info["ratio"], info["rise"], 0.1))
        assert terminated
        asked[row, action] = info["ratio"]
    assert len(asked) == 6
    assert reader.reads == busy + 2 * 6  # a look before each decision and one beside each timing


def test_the_live_mode_refuses_what_cannot_be_measured(model):
    profiles = built(model)
    how = {"profiles": profiles, "prompts": PROMPTS, "reader": Growing()}
    with pytest.raises(ValueError, match="actions: ffn given, valid is none first"):
        LivePrompts(choices=[Action(profile="ffn")], **how)
    with pytest.raises(ValueError, match="new_tokens, repetitions: 0, 4 given"):
        LivePrompts(choices=[Action()], new_tokens=0, **how)


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
