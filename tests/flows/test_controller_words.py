"""The words of `espalier controller`: what repeats a run, and what is refused before any work."""

import json
import random
import shlex
from pathlib import Path

import pytest

from flows.cli import build_parser, main
from flows.controller_choices import Controller, parse_learners, parse_reward
from flows.controller_words import controller_of
from flows.methods import parse_importance
from tests.flows.conftest import WORDS


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "asked.jsonl"
    drawn = random.Random(0)
    texts = [" ".join(drawn.choices(WORDS, k=12)) for _ in range(20)]
    rows = [{"prompt": text, "reference": " a frame and every branch"} for text in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"floor": "0.02,0.05,0.1", "live": True, "prompt_limit": 50, "seeds": 7, "target": 0.01},
        {"actions": "ffn20,ffn20@snapkv:0.25,none@window:0.5", "tokens": 16, "repetitions": 5},
        {"profiles": "ffn20,depth17", "actions": "ffn20,depth17@key_norm:0.5", "repair": False, "round_to": 32},
        {"learner": parse_learners("dqn,passes=8"), "reward": parse_reward("quality=1,tolerance=0"), "ablations": True},
        {"learner": parse_learners("dqn+bandit,passes=2"), "importance": parse_importance("flap"), "seed": 3},
    ],
)
def test_the_command_of_a_run_repeats_it(words: dict):
    parameters = Controller.parse(**words)
    again = build_parser().parse_args(shlex.split(parameters.command())[1:])
    assert controller_of(again) == parameters
    assert Controller.model_validate_json(parameters.model_dump_json()) == parameters


def test_a_comma_inside_a_budget_is_no_end_of_an_action():
    parameters = Controller.parse(actions="ffn20@snapkv:0.25,window=16,ffn20")
    assert parameters.actions == ("ffn20@snapkv:0.25,window=16", "ffn20")
    again = build_parser().parse_args(shlex.split(parameters.command())[1:])
    assert controller_of(again) == parameters


def test_profiles_are_those_that_the_actions_name():
    assert Controller.parse(actions="ffn20,depth17@window:0.5,none@window:0.5").making().profiles == "ffn20,depth17"
    assert Controller.parse().making().profiles is None


def test_every_learner_learns_with_the_run_s_reward_and_ablations_without_a_part():
    plain = Controller.parse(reward=parse_reward("quality=5"))
    assert [(name, without) for name, _, without in plain.learners()] == [("dqn", ()), ("bandit", ())]
    assert all(learner.reward.quality == 5 for _, learner, _ in plain.learners())
    assert {learner.target for _, learner, _ in Controller.parse(target="0.02").learners()} == {0.02}
    ways = Controller.parse(learner=parse_learners("bandit"), ablations=True).learners()
    assert len({name for name, _, _ in ways}) == len(ways)
    assert {len(without) for _, _, without in ways} == {0, 6, 7}
    assert {learner.reward.quality for _, learner, _ in ways} == {0, 1, 3, 10}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"floor": "0"}, ("floor: 0 given", "above 0 and at most 1")),
        ({"floor": "5"}, ("floor: 5 given", "above 0 and at most 1")),
        ({"floor": "nan"}, ("floor: nan given", "above 0")),
        ({"floor": "much"}, ("floor", "much")),
        ({"floor": "0.05,0.05"}, ("floor: 0.05,0.05 given", "each floor once")),
        ({"learner": "sarsa"}, ("learner", "sarsa", "dqn, bandit, both")),
        ({"learner": "dqn,depth=3"}, ("learner", "depth=3", "passes=")),
        ({"learner": "dqn+dqn"}, ("learner", "once")),
        ({"learner": "dqn,target=0.1"}, ("learner", "target=0.1", "passes=")),
        ({"target": "1"}, ("target",)),
        ({"reward": "speed=3"}, ("reward", "speed=3", "quality=")),
        ({"actions": "ffn50,ffn50"}, ("actions: 'ffn50' given twice",)),
        ({"actions": "ffn50@window:2"}, ("actions", "window")),
        ({"actions": "ffn50@window:1"}, ("actions: 'ffn50@window:1", "less than 1")),
        ({"actions": "ffn50@attic:0.5"}, ("actions", "attic", "snapkv")),
        ({"actions": "none@window:0.5"}, ("actions", "none of a profile", "ffn20")),
        ({"actions": "heads50", "profiles": "ffn50"}, ("actions: 'heads50' given", "none, ffn50")),
        ({"profiles": "ffn50,depth50", "actions": "ffn50"}, ("profiles: depth50 given", "no action uses")),
        ({"actions": "neck50"}, ("profiles: neck50 given", "heads, ffn, depth")),
        ({"prompts": "asked.txt"}, ("prompts", "asked.txt")),
        ({"prompts": "{tmp}/none.jsonl"}, ("prompts", "none.jsonl", "not")),
        ({"prompt-limit": "4"}, ("prompts: 4 given", "train", "8 or more")),
        ({"prompt-limit": "0"}, ("prompt_limit",)),
        ({"tokens": "505"}, ("prompts", "longer than 7 tokens", "context of 512")),
        ({"seeds": "0"}, ("seeds",)),
        ({"model": "no-such-model"}, ("model", "no-such-model")),
        ({"calibration": "dogs"}, ("dogs", "docs")),
        ({"importance": "tailor"}, ("importance", "tailor")),
    ],
)
def test_a_mistake_is_one_line_that_names_the_field(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: Path,
    stories: Path,
    prompts: Path,
    capsys: pytest.CaptureFixture,
    changed: dict,
    says: tuple,
):
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "artifacts"))
    words = {
        "model": str(tiny_model),
        "prompts": str(prompts),
        "importance": "weight_norm",
        "calibration": str(stories),
    }
    words |= {"samples": "4", "window": "32", "round-to": "8", "actions": "ffn50"}
    words |= {name: value.replace("{tmp}", str(tmp_path)) for name, value in changed.items()}
    if words["actions"] == "heads50" or changed.get("profiles") == "depth50":
        del words["round-to"]
    said = [word for name, value in words.items() for word in (f"--{name}", value)]
    assert main(["controller", "train", *said]) == 2
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert (printed.out, len(lines)) == ("", 1), printed.err
    assert all(part in lines[0] for part in says), lines[0]
    assert not (tmp_path / "artifacts" / "store" / "scores").exists()


def test_a_report_of_none_says_how_to_make_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path))
    assert main(["controller", "report"]) == 2
    assert "espalier controller train" in capsys.readouterr().err
