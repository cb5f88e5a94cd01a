"""`espalier generate`: the answer on stdout, what made it on stderr, and what a mistake in the words gets."""

import argparse
import io
import json
from pathlib import Path

import pytest

from flows import generating
from flows.answer_words import say_generate
from flows.generating import run_generate
from flows.words import Words
from tasks.model.folder import fingerprint
from tasks.model.load import BUILTIN, load_model
from tasks.prune.structure.named_cuts import of_equal_scores, parse_cuts
from tasks.prune.structure.profile_folder import save_profiles
from tasks.prune.structure.profiles import Profiles
from tasks.train_controller.runtime import Controller

PROMPT = "The function returns a list of"


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cuts of the built-in model, as a folder."""
    made = Profiles(load_model(BUILTIN))
    for cut in parse_cuts("ffn30,depth35"):
        made.add(of_equal_scores(cut, made.model, 64))
    folder = tmp_path_factory.mktemp("profiles")
    save_profiles(made, fingerprint(BUILTIN), folder)
    return folder


@pytest.fixture(scope="module")
def controller(profiles: Path) -> Controller:
    return Controller.load(BUILTIN, profiles)


def parsed(*words: str | Path) -> argparse.Namespace:
    parser = Words()
    say_generate(parser)
    return parser.parse_args([*map(str, words)])


def test_the_answer_is_on_stdout_and_what_made_it_on_stderr(controller: Controller, capsys: pytest.CaptureFixture):
    assert run_generate(parsed("--tokens", "6", "--seed", "2", "--temperature", "0.9", PROMPT)) == 0
    printed = capsys.readouterr()
    answer = controller.answer(PROMPT, new_tokens=6, seed=2, temperature=0.9)
    assert printed.out == answer.text + "\n" * (not answer.text.endswith("\n"))
    why, saw, speed = printed.err.splitlines()
    assert "none was taken, as there is no policy to choose" in why
    assert all(f"{name} " in saw for name in answer.decision.observation.as_dict())
    assert f"{answer.tokens} tokens after {answer.prompt_tokens} at " in speed


def test_an_action_is_forced_and_compared_with_the_whole_model(
    controller: Controller, profiles: Path, capsys: pytest.CaptureFixture
):
    words = ("--profiles", profiles, "--action", "depth35@window:0.5", "--tokens", "6", "--compare", "--json", PROMPT)
    assert run_generate(parsed(*words)) == 0
    printed = capsys.readouterr()
    (line,) = printed.out.splitlines()
    found = json.loads(line)
    (action,) = {found["action"], found["gain"]["action"]}
    assert action.startswith("depth35@window:0.5")
    assert (found["dense"]["action"], found["scores"]) == ("none", {})
    assert found["dense"]["text"] == controller.answer(PROMPT, new_tokens=6).text
    assert found["text"] != found["dense"]["text"]
    assert found["text"] in printed.err
    gain = found["gain"]
    assert gain["pairs"] == generating.PAIRS
    assert 0 < gain["low"] <= gain["ratio"] <= gain["high"]
    assert f"{gain['ratio']:.2f} times as fast ({gain['low']:.2f} to {gain['high']:.2f}" in printed.err


def test_both_sides_of_a_comparison_write_equally_many_tokens_and_take_turns_to_begin(controller: Controller):
    asked = []

    class Noting:
        def answer(self, prompt: str, **how):
            asked.append(str(how.get("action")))
            return controller.answer(prompt, **how)

    stop = controller.answer(PROMPT, new_tokens=4).text
    pairs = generating.time_pairs(Noting(), PROMPT, {"new_tokens": 9, "stop": (stop,)}, 3)
    assert [(so.tokens, whole.tokens) for so, whole in pairs] == [(3, 3)] * generating.PAIRS
    assert asked[:4] == ["None", "none", "none", "None"]


def test_a_prompt_is_read_from_stdin_and_stops(
    controller: Controller, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    whole = controller.answer(PROMPT, new_tokens=8).text
    stop = whole[6:9]
    monkeypatch.setattr("sys.stdin", io.StringIO(PROMPT + "\n"))
    assert run_generate(parsed("--tokens", "8", "--stop", stop, "--stop", "never", "-")) == 0
    assert capsys.readouterr().out.removesuffix("\n") == whole[: whole.index(stop)].removesuffix("\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "no-such-model", PROMPT], "model: no-such-model"),
        (["--profiles", "absent", PROMPT], "profiles: absent given, which is no folder"),
        (["--policy", ".", PROMPT], "policy"),
        (["--profiles", ".", PROMPT], "profiles"),
        (["--profiles", "PROFILES", "--policy", "absent", PROMPT], "policy: absent given, which is no folder"),
        (["--profiles", "PROFILES", "--policy", ".", PROMPT], "policy"),
        (["--profiles", "PROFILES", "--action", "ffn20", PROMPT], "valid profiles are none, ffn30, depth35"),
        (["--profiles", "PROFILES", "--action", "ffn30@windows:0.5", PROMPT], "window"),
        (["--action", "ffn30", PROMPT], "action: 'ffn30' given, but no profiles are; give --profiles"),
        (["--device", "tpu", PROMPT], "device: 'tpu' given, valid is auto, cpu, cuda or cuda:1"),
        (["--tokens", "0", PROMPT], "'0' given, valid is a whole number, 1 or more"),
        (["--seed", "-1", PROMPT], "seed"),
        (["--temperature", "-1", PROMPT], "temperature: -1.0 given"),
        (["--temperature", "warm", PROMPT], "'warm' given, valid is a number"),
        (["--stop", "", PROMPT], "stop: '' given"),
        ([""], "prompt: an empty one given"),
        (["caf\udce9"], r"prompt: '\udce9' as its character 3 given, valid is Unicode text"),
        (["a tree " * 600], "tokens given, valid is at most 511"),
        ([], "prompt"),
    ],
)
def test_a_mistake_in_the_words_is_one_line(
    words: list[str], says: str, profiles: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r".") as mistake:
        run_generate(parsed(*(profiles if word == "PROFILES" else word for word in words)))
    assert says in str(mistake.value)
    assert "\n" not in str(mistake.value)
    assert capsys.readouterr().out == ""


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    class Interrupted:
        def stream(self, prompt: str, **how):
            yield "The first "
            raise KeyboardInterrupt

    monkeypatch.setattr(generating, "controller_of", lambda arguments: Interrupted())
    assert run_generate(parsed(PROMPT)) == 130
    assert capsys.readouterr() == ("The first ", "\nespalier: interrupted\n")
