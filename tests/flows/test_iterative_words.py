"""What `espalier iterative` may be told: presets that need no network, and mistakes that are one line."""

import json
import shlex
from pathlib import Path

import pytest

from flows import iterative_plan
from flows.cli import build_parser, main
from flows.iterative_choices import Iterative, parse_allocator
from flows.iterative_presets import PRESETS, preset_named
from flows.iterative_words import preset_of
from flows.methods import parse_importance
from flows.recoveries import parse_distil
from tasks.model import load

PAIRS = {  # millions of parameters before and after, stages
    "mobilellm-350m": (376.1, 143.1, 20),
    "mobilellm-600m": (603, 376, 9),
    "mobilellm-1b": (1005, 603, 10),
    "qwen2.5-0.5b": (494, 376, 5),
    "deepseek-r1-distill-qwen-1.5b": (1777, 1005, 11),
    "llama-3.2-1b": (1240, 980, 2),
}


@pytest.fixture
def complain(artifacts: Path, tiny_model: Path, stories: Path, capsys: pytest.CaptureFixture):
    """Run `espalier iterative` with some words changed; return its one line of complaint."""

    def run(**changed: str) -> str:
        words = {"model": str(tiny_model), "target-parameters": "14000", "stages": "3", "recover-tokens": "6144"}
        words |= {"samples": "8", "window": "32", "round-to": "8"}
        words |= {"calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]"} | changed
        assert main(["iterative", *(word for name, value in words.items() for word in (f"--{name}", value))]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert len(printed.err.splitlines()) == 1, printed.err
        assert not (artifacts / "store" / "tokens").exists()
        return printed.err

    return run


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"target-parameters": "20640"}, ("target_parameters: 20640 given, valid is ", " to 19872")),
        ({"target-parameters": "3000"}, ("target_parameters: 3000 given, valid is 6816 to 19872",)),
        ({"target-parameters": "19000", "stages": "3"}, ("stages: 3 given, valid is 1 to 2", "768 parameters")),
        ({"stages": "0"}, ("stages", "0")),
        ({"recover-tokens": "1024"}, ("recover_tokens: 1024 given for 3 stages, valid is 1536 or more",)),
        ({"recover-rate": "inf"}, ("recover_rate: Input should be a finite number",)),
        ({"seed": str(1 << 32)}, ("seed: Input should be less than 4294967296",)),
        ({"allocator": "adapt,step=0.1,step=0.2"}, ("allocator: adapt was given step twice", "valid is once")),
        ({"recover-tokens": str(1 << 63)}, ("recover_tokens: Input should be less than 9223372036854775808",)),
        ({"recover-tokens": "0"}, ("recover_tokens: 0 given", "slice")),
        ({"recover": "lora"}, ("recover: lora given, valid is full",)),
        ({"allocator": "rl"}, ("allocator: 'rl' is unknown; choose one of uniform, adapt",)),
        ({"allocator": "adapt,step=2"}, ("allocator: adapt", "step: 2")),
        ({"importance": "influence"}, ("importance: influence gives no scores of head_groups, channels", "taylor")),
        ({"round-to": "24"}, ("round_to: 24 given", "64 channels")),
        ({"samples": "1"}, ("samples: 1 given, valid is 2 or more",)),
        ({"calibration-window": "513"}, ("calibration_window: 513", "512")),
        ({"preset": "large"}, ("preset: 'large' is unknown; choose one of small, mobilellm-350m",)),
        ({"model": "no-such-model"}, ("model: no-such-model is neither",)),
    ],
)
def test_a_mistake_is_one_line_before_any_work(complain, changed: dict[str, str], says: tuple[str, ...]):
    line = complain(**changed)
    assert all(part in line for part in says), line


@pytest.mark.parametrize("missing", ["target-parameters", "stages", "recover-tokens"])
def test_without_a_preset_the_target_the_stages_and_the_tokens_are_asked_for(missing: str, capsys):
    words = {"target-parameters": "14000", "stages": "3", "recover-tokens": "6144"}
    given = [word for name, value in words.items() if name != missing for word in (f"--{name}", value)]
    assert main(["iterative", *given]) == 2
    assert f"{missing.replace('-', '_')}: none given" in capsys.readouterr().err


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_tells_its_stages_without_a_network(name: str, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(iterative_plan, "resolve", lambda name: pytest.fail("looked for a model"))
    before, after, stages = PAIRS[name]
    assert main(["iterative", "--preset", name, "--dry-run", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["stages"]
    left = [before + (after - before) * k / stages for k in range(1, stages + 1)]
    assert [row["parameters"] / 1e6 for row in rows] == pytest.approx(left, abs=1e-6)
    shares = [2 * k / (stages * (stages + 1)) for k in range(1, stages + 1)]
    tokens = sum(row["tokens"] for row in rows)
    assert [row["tokens"] / tokens for row in rows] == pytest.approx(shares, abs=1.01 / sum(r["steps"] for r in rows))
    assert tokens == preset_named(name).flow.recover_tokens
    settings = preset_named(name).flow
    assert (settings.samples, settings.calibration_window) == (512, 64)
    assert settings.importance == parse_importance("taylor")
    assert (settings.window, settings.recover_batch, settings.training().recovery.rate) == (1024, 128, 2e-5)


def test_a_model_that_is_here_is_counted_without_its_weights(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(iterative_plan, "load_model", lambda *_: pytest.fail("loaded weights"))
    words = ["--preset", "small", "--model", str(tiny_model), "--target-parameters", "14000", "--stages", "2"]
    assert main(["iterative", *words, "--dry-run"]) == 0
    *_, first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("| 1 | 17320 | 16 |")  # halfway from 20640
    assert last.startswith("| 2 | 14000 | 32 |")


def test_of_too_few_tokens_the_stages_are_not_told(capsys):
    assert main(["iterative", "--preset", "small", "--dry-run", "--recover-tokens", "5"]) == 2
    assert "recover_tokens: 5 given for 3 stages, valid is 12288 or more" in capsys.readouterr().err


def test_a_preset_whose_model_is_not_to_be_had_says_so_at_once(monkeypatch, artifacts, capsys):
    monkeypatch.setattr(load, "hub_answers", lambda: False)
    assert main(["iterative", "--preset", "llama-3.2-1b"]) == 2
    assert "model: meta-llama/Llama-3.2-1B is no folder here nor in the hub's local cache" in capsys.readouterr().err


def test_other_words_change_a_preset():
    arguments = build_parser().parse_args(shlex.split("iterative --preset small --stages 2 --no-repair --samples 9"))
    assert preset_of(arguments).flow == preset_named("small", stages=2, repair=False, samples=9).flow
    assert preset_of(build_parser().parse_args(["iterative", "--preset", "small"])) == PRESETS["small"]()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"repair": False, "calibration_window": 64, "speed": False, "seed": 3},
        {"importance": parse_importance("fisher"), "allocator": parse_allocator("adapt,amplitude=0.05")},
        {"distil": parse_distil("temperature=3"), "recover_text": ("a.jsonl=2+b.jsonl",), "recover_batch": 8},
    ],
)
def test_the_command_of_a_run_repeats_it(changes: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).touch()
    parameters = Iterative.parse(target_parameters=9, stages=2, recover_tokens=99999, **changes)
    again = build_parser().parse_args(shlex.split(parameters.command())[1:])
    assert preset_of(again).flow == parameters
    assert Iterative.model_validate_json(parameters.model_dump_json()) == parameters


def test_the_help_names_every_preset(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit):
        main(["iterative", "--help"])
    [said] = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("--preset PRESET")]
    assert [name for name in PRESETS if name not in said] == []
