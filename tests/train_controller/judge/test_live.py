"""A live test compares what answered in the same round, whoever began, and the clock decides nothing else."""

from types import SimpleNamespace

import pytest
import torch

from tasks.train_controller.act.actions import Action
from tasks.train_controller.judge.live import LiveAnswer, Named, Rival, answer_live, decision_times, live_decisions
from tasks.train_controller.learn.reward import Reward
from tasks.train_controller.learn.table import Table
from tasks.train_controller.measure.episodes import EncodedPrompt
from tasks.train_controller.observation import FEATURES

IDS = torch.ones(1, 2, dtype=torch.long)
PROMPTS = [EncodedPrompt(prompt=name, source="docs", split="test", ids_1T=IDS, reference_1R=IDS) for name in "ab"]


class Clock:
    """A controller that answers as fast as it is told, one speed a round, and remembers who was asked."""

    def __init__(self, name: str, speeds: list[float], asked: list[str], actions: tuple[str, ...] = ("none",)) -> None:
        self.name, self.speeds, self.asked, self.actions, self.rounds = name, speeds, asked, actions, 0

    def answer(self, ids, *, new_tokens, ignore_stops, action):
        assert ignore_stops
        assert new_tokens == 4
        self.asked.append(self.name)
        speed, chosen = self.speeds[self.rounds % len(self.speeds)], self.actions[self.rounds % len(self.actions)]
        self.rounds += 1
        seen = SimpleNamespace(as_dict=lambda rounds=self.rounds: {"cpu_use": rounds / 10})
        decision = SimpleNamespace(action=action or chosen, decision_ms=float(self.rounds), observation=seen)
        return SimpleNamespace(tokens_per_s=speed, decision=decision)


def rival(policy: str, controller: Clock, action: Action | None = None) -> Rival:
    return Rival(named=Named(policy=policy, floor=0.05, seed=1), controller=controller, action=action)


def test_speeds_are_compared_round_by_round_behind_the_first_and_everyone_begins():
    asked: list[str] = []
    dense = rival("dense", Clock("dense", [1.0, 10.0, 20.0, 40.0], asked), Action())
    policy = rival("dqn", Clock("dqn", [9.0, 11.0, 30.0, 60.0], asked))
    [answers] = list(answer_live(dense, [policy], PROMPTS[:1], tokens=4, repetitions=3))
    [answer] = answers
    assert answer.ratio == pytest.approx(1.5)  # the median of 1.1, 1.5 and 1.5; the 9 of the first round is no part
    assert (answer.policy, answer.floor, answer.seed, answer.prompt) == ("dqn", 0.05, 1, "a")
    assert (answer.action, answer.share, answer.decision_ms) == ("none", 1.0, 3.0)
    assert len(asked) == 8
    assert {*asked[::2]} == {"dense", "dqn"}


def test_each_action_that_a_policy_took_has_the_times_of_its_own_rounds():
    dense = rival("dense", Clock("dense", [1.0], []), Action())
    policy = rival("dqn", Clock("dqn", [9.0, 1.1, 1.5, 1.3, 1.2], [], ("none", "ffn20", "none", "ffn20", "ffn20")))
    [[often, seldom]] = list(answer_live(dense, [policy], PROMPTS[:1], tokens=4, repetitions=4))
    assert (often.action, often.share, often.ratio) == ("ffn20", 0.75, pytest.approx(1.2))
    assert (seldom.action, seldom.share, seldom.ratio) == ("none", 0.25, pytest.approx(1.5))
    assert (often.decision_ms, seldom.decision_ms) == (4.0, 3.0)
    assert (often.state, seldom.state) == ('{"cpu_use": 0.2}', '{"cpu_use": 0.3}')  # of the first of their rounds


def test_every_prompt_has_an_answer_of_each_rival_and_none_of_dense():
    asked: list[str] = []
    dense = rival("dense", Clock("dense", [1.0], asked), Action())
    rivals = [rival("dqn", Clock("dqn", [2.0], asked)), rival("best fixed", Clock("fixed", [3.0], asked), Action())]
    found = list(answer_live(dense, rivals, PROMPTS, tokens=4, repetitions=1))
    assert [[(each.policy, each.prompt, each.ratio) for each in of_prompt] for of_prompt in found] == [
        [("dqn", name, 2.0), ("best fixed", name, 3.0)] for name in "ab"
    ]


def test_dense_is_timed_once_more_and_stands_at_every_floor():
    asked: list[str] = []
    dense = rival("dense", Clock("dense", [1.0, 1.0, 2.0, 3.0], asked), Action())
    [found] = list(answer_live(dense, [], PROMPTS[:1], tokens=4, repetitions=1, again=(0.1, 0.2)))
    assert len(asked) == 4  # each round two
    assert [(each.policy, each.floor, each.action) for each in found] == [
        ("dense", 0.1, "none"),
        ("dense", 0.2, "none"),
    ]
    assert {each.ratio for each in found} == {1.5}


def test_rows_have_the_speed_that_was_live_and_the_rise_that_was_measured():
    test = Table(
        actions=("none", "ffn20"),
        features=FEATURES,
        prompts=("a", "b"),
        sources=("docs", "docs"),
        state_PF=torch.zeros(2, len(FEATURES)).double(),
        ratio_PA=torch.tensor([[1.0, 1.3], [1.0, 1.2]]).double(),
        rise_PA=torch.tensor([[0.0, 0.04], [0.0, 0.15]]).double(),
        kl_PA=torch.zeros(2, 2).double(),
    )
    facts = {"policy": "dqn", "floor": 0.05, "seed": 1, "decision_ms": 0.5, "state": '{"cpu_use": 0.5}'}
    answers = [
        LiveAnswer(prompt="b", ratio=1.1, action="ffn20", share=0.75, **facts),
        LiveAnswer(prompt="b", ratio=0.98, action="none", share=0.25, **facts),
        LiveAnswer(prompt="a", ratio=1.25, action="ffn20", share=1.0, **facts),
    ]
    broken, spared, met = live_decisions(answers, test, Reward(quality=3.0, tolerance=1.0))
    assert (broken.prompt, broken.ratio, broken.live, broken.share) == ("b", 1.1, True, 0.75)
    assert (spared.rise, spared.regret, spared.share) == (0.0, pytest.approx(0.02), 0.25)
    assert broken.state == '{"cpu_use": 0.5}'
    assert broken.rise == pytest.approx(0.15)
    assert broken.reward == pytest.approx(1.1 - 3 * 0.10)
    assert broken.regret == pytest.approx(1.0 - (1.1 - 3 * 0.10))  # the best that meets the floor there is "none"
    assert met.reward == pytest.approx(1.25)
    assert met.regret == pytest.approx(1.3 - 1.25)


def test_only_who_chooses_has_a_time_to_choose():
    facts = {"floor": 0.05, "seed": 0, "prompt": "a", "action": "none", "ratio": 1.0, "share": 1.0, "state": "{}"}
    answers = [LiveAnswer(policy="dqn", decision_ms=each, **facts) for each in (0.5, 0.25, 4.0)]
    answers += [LiveAnswer(policy=policy, decision_ms=1.0, **facts) for policy in ("best fixed", "dense")]
    assert decision_times(answers) == {"dqn": 0.5}
