"""What `espalier activation` may be told: mistakes that are one line, a preset, and commands that repeat a run."""

import shlex
from itertools import product
from pathlib import Path

import pytest

from flows.activation_choices import Activation, activation_of, parse_learn, parse_mitigations, parse_selection
from flows.cli import build_parser, main
from flows.methods import parse_allocation
from flows.presets import SWEEPS
from tasks.prune import MITIGATIONS, SELECTIONS


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"selection": "top"}, ("selection: 'top' is unknown", "topk, nm, threshold, clact, amber, weight_variance")),
        ({"pattern": "2:4"}, ("pattern: 2:4 given", "topk keeps a share", "nm")),
        ({"selection": "nm"}, ("pattern: 50% given", "8:16")),
        ({"selection": "nm", "pattern": "3:7"}, ("pattern: 3:7 does not divide the 32 inputs",)),
        ({"mitigation": "vary"}, ("mitigation: 'vary' is unknown", "var, dpts", "none")),
        ({"mitigation": "dpts,centre=mode"}, ("mitigation: dpts", "centre", "mean", "median")),
        ({"mitigation": "var+var"}, ("mitigation: Variance given 2 times",)),
        ({"mitigation": "spts+dpts"}, ("mitigation: StaticShift and DynamicShift given",)),
        ({"modules": "neck_proj"}, ("modules: 'neck_proj' given, which no block has", "mlp.down_proj")),
        ({"modules": ""}, ("modules: none given",)),
        ({"learn": "rate=0.1"}, ("learn: nothing that was given learns", "spts, lpts, ls, rsparse")),
        ({"mitigation": "lpts", "learn": "rate=-1"}, ("learn", "rate: -1.0 given", "more than 0")),
        ({"mitigation": "lpts", "samples": "1"}, ("samples: 1 given", "hold out")),
        ({"selection": "nm", "pattern": "2:4", "greedy": "0.1"}, ("greedy", "a share such as 50%", "2:4")),
        ({"greedy": "2"}, ("greedy", "2")),
        ({"greedy": "0.1", "modules": "down_proj"}, ("greedy", "one input", "leave it out")),
        ({"greedy": "0.1", "pattern": "99.9%"}, ("greedy: 99.9% of a block asked", "at most 99%")),
        ({"pattern": "0%"}, ("pattern: 0% keeps every input", "50%")),
        ({"selection": "nm", "pattern": "4:4"}, ("pattern: 4:4 keeps every input", "2:4")),
        ({"mitigation": "none+var"}, ("mitigation: none+var given", "leave it out")),
        ({"allocation": "rl"}, ("allocation: 'rl' given", "uniform, owl, or a JSON file")),
        ({"allocation": "[0.5]"}, ("allocation: 1 blocks given, the model has 2",)),
        ({"allocation": "[0.2, 0.6]"}, ("allocation: its blocks drop 0.4", "50% drops 0.5")),
        (
            {
                "allocation": '{"0": {"attention": 0.5, "ffn": 0.5}, "1": {"attention": 0.5, "ffn": 0.5}}',
                "greedy": "0.1",
            },
            ("greedy", "give one"),
        ),
        ({"prefill": "dense", "no-speed": None}, ("prefill", "nothing is timed", "--no-speed")),
        ({"prefill": "slow"}, ("prefill", "slow", "sparse")),
        ({"model": "no-such-model"}, ("model", "no-such-model")),
    ],
)
def test_a_mistake_is_one_line_that_names_the_field(
    artifacts: Path, tiny_model: Path, stories: Path, capsys: pytest.CaptureFixture, changed: dict, says: tuple
):
    words: dict[str, str | None] = {"model": str(tiny_model), "selection": "topk", "pattern": "50%", "samples": "4"}
    words |= {"window": "32", "calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]"} | changed
    given = [[f"--{name}"] if value is None else [f"--{name}", value] for name, value in words.items()]
    assert main(["activation", *(word for words in given for word in words)]) == 2
    printed = capsys.readouterr()
    assert (printed.out, len(printed.err.splitlines())) == ("", 1), printed.err
    assert all(part in printed.err for part in says), printed.err
    assert not (artifacts / "store" / "activations").exists()


def test_what_is_learned_on_is_not_evaluated(
    artifacts: Path, tiny_model: Path, stories: Path, capsys: pytest.CaptureFixture
):
    words = ["--model", str(tiny_model), "--selection", "topk", "--pattern", "50%", "--mitigation", "lpts"]
    words += ["--samples", "4", "--window", "32"]
    overlap = ["--calibration", f"{stories}[:20]", "--evaluation", f"{stories}[19:]"]
    assert main(["activation", *words, *overlap]) == 2
    assert "calibration" in (said := capsys.readouterr().err)
    assert "rows of its own" in said
    copied = artifacts.with_suffix(".jsonl")
    copied.write_bytes(stories.read_bytes())  # the same text by another name, which its contents tell
    assert main(["activation", *words, "--calibration", str(stories), "--evaluation", str(copied)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "calibration" in said
    assert "the evaluation" in said


def test_the_preset_sets_inputs_against_weights_at_the_same_patterns():
    points = SWEEPS["activation"]().points
    inputs = [point for point in points if isinstance(point, Activation)]
    patterns = {"2:4", "4:8", "8:16", "16:32", *(f"{percent}%" for percent in range(20, 100, 10))}
    for mitigation in ("", "+var", "+dpts"):
        names = {f"nm{mitigation}", f"topk{mitigation}"}
        assert {point.pattern for point in inputs if point.name in names} == patterns
    for pruner in ("magnitude", "wanda"):
        assert {point.pattern for point in points if point.name == pruner} == patterns
    assert {point.selection.method for point in inputs} == {*SELECTIONS}
    assert {each.method for point in inputs for each in point.mitigation} == {*MITIGATIONS}
    assert len({point.command() for point in points}) == len(points)


def test_the_tables_have_every_pattern_of_every_way_of_every_set_of_linears():
    points = SWEEPS["activation-tables"]().points
    ways = {(point.modules, point.pattern, point.name.partition(" on ")[0]) for point in points}
    patterns = ("2:4", "4:8", "8:16", "16:32", *(f"{percent}%" for percent in range(20, 100, 10)))
    ffn, attention = ("gate_proj", "up_proj", "down_proj"), ("q_proj", "k_proj", "v_proj", "o_proj")
    for modules, pattern in product((("*",), ffn, attention), patterns):
        inputs = "nm" if ":" in pattern else "topk"
        made_up = (inputs, *(f"{inputs}+{each}" for each in ("var", "dpts", "spts", "lpts", "ls", "rsparse")))
        assert {way for way in ways if way[:2] == (modules, pattern)} == {
            (modules, pattern, name) for name in (*made_up, "magnitude", "wanda")
        }
    assert len({point.command() for point in points}) == len(points) == len(ways) == 324


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"selection": parse_selection("threshold"), "greedy": 0.05, "modules": ("mlp.*", "o_proj"), "window": 64},
        {"mitigation": parse_mitigations("var+dpts,centre=median"), "prefill": "dense", "seed": 3},
        {"mitigation": parse_mitigations("rsparse,rank=4+ls"), "learn": parse_learn("rate=0.01,epochs=3")},
        {"selection": parse_selection("nm"), "pattern": "8:16", "speed": False, "sampling": "first"},
        {"allocation": parse_allocation("owl,spread=0.1")},
        {"allocation": parse_allocation("[0.25, 0.75]"), "greedy": 0.1},
        {"mitigation": parse_mitigations("spts"), "learn": parse_learn(""), "samples": 7},
    ],
)
def test_the_command_of_a_run_repeats_it(words: dict):
    parameters = Activation.parse(**{"selection": parse_selection("topk")} | words)
    again = build_parser().parse_args(shlex.split(parameters.command())[1:])
    assert activation_of(vars(again)) == parameters
    assert Activation.model_validate_json(parameters.model_dump_json()) == parameters
