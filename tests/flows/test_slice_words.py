"""What `espalier slice` may be told: mistakes that are one line, help, and commands that repeat a run."""

import re
import shlex
from pathlib import Path

import pytest

from flows.choices import Slice
from flows.cli import build_parser, main
from flows.methods import parse_importance
from flows.parameters import slice_of
from flows.words import Words, say_slice
from tasks.prune.structure.cut import BEST_FORMS
from tasks.prune.structure.export import FORMS

DEPTH = {"units": "attention", "importance": "influence", "round-to": "64", "budget": "0.1655"}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"budget": "0"}, ("budget", "greater than 0")),
        ({"budget": "1"}, ("budget", "less than 1")),
        ({"budget": "half"}, ("budget", "half")),
        ({"budget": "0.95"}, ("budget: 0.95", "valid is 0.0", " to 0.7", "head_groups")),
        ({"budget": "0.001"}, ("budget: 0.001", "valid is 0.0", " to 0.7", "head_groups")),
        ({"importance": "tailor"}, ("importance", "tailor", "weight_norm, activation, wanda_sp, flap, taylor, fisher")),
        ({"importance": "influence"}, ("importance: influence", "channels, head_groups", "weight_norm, activation")),
        ({"importance": "leave_one_out,kinds=channels"}, ("importance", "head_groups")),
        ({"importance": "taylor,x=1"}, ("importance", "taylor", "x=1")),
        ({"units": "neurons"}, ("units: neurons", "head_groups, query_heads, channels", "blocks")),
        ({"units": "head_groups,query_heads"}, ("units", "cut one, then the other")),
        ({"units": "channels,channels"}, ("units", "channels, channels")),
        ({"units": "blocks"}, ("importance: wanda_sp", "blocks", "influence, leave_one_out")),
        ({"units": "blocks", "importance": "influence"}, ("round_to", "blocks")),
        (
            {"units": "attention,channels"},
            ("units: attention, channels given", "; or blocks; or some of attention, ffn"),
        ),
        (
            {"units": "attention,ffn"},
            ("importance: wanda_sp gives no scores of attention, ffn", "influence, leave_one"),
        ),
        ({"units": "ffn", "importance": "influence"}, ("round_to: whole ffn have no width",)),
        (DEPTH | {"budget": "0.9"}, ("budget: 0.9 given for attention, valid is 0.1655 to 0.1655",)),
        (DEPTH | {"export": "uniform"}, ("export: uniform cannot", "no attention; valid is padded, per_layer")),
        ({"cost": "watts"}, ("cost", "parameters", "flops", "bytes", "kv", "watts")),
        ({"cost": "kv", "units": "channels"}, ("cost: kv given for channels", "head_groups", "blocks")),
        ({"cost": "kv", "budget": "0.2"}, ("budget: 0.2", "valid is 0.5;", "1 of 2 head_groups")),
        ({"allocator": "owl"}, ("allocator: 'owl' given", "cannot be read", "uniform", "JSON file")),
        ({"allocator": "[0.4, true]"}, ("allocator: [0.4, true] given", "uniform", "JSON file")),
        ({"allocator": "[" * 9999}, ("allocator: '[[", "cannot be read", "JSON file")),
        ({"allocator": "[0.4"}, ("allocator: '[0.4' given", "cannot be read", "JSON file")),
        ({"allocator": "[0.2, 0.4]"}, ("allocator", "mean of 0.3", "mean of 0.4", "budget")),
        ({"allocator": "[0.4, 0.4, 0.4]"}, ("allocator: 3 shares given", "2 blocks")),
        ({"export": "gguf"}, ("export", "uniform", "padded", "per_layer", "gguf")),
        ({"round-to": "65"}, ("round_to: 65", "1 to the 64")),
        ({"round-to": "0"}, ("round_to", "0")),
        ({"samples": "1"}, ("samples", "hold out")),
        ({"measure-units": "2"}, ("measure_units: 2", "3 or more")),
        ({"recover-rate": "0.1"}, ("recover_rate", "recover_tokens")),
        ({"recover-batch": "8"}, ("recover_batch", "recover_tokens")),
        ({"recover-tokens": "32"}, ("recover_tokens: 32", "512 or more", "16 windows of 32")),
        ({"recover-tokens": "-1"}, ("recover_tokens", "-1")),
        ({"model": "no-such-model"}, ("model", "no-such-model")),
        ({"calibration": "dogs"}, ("dogs", "docs")),
        ({"samples": "4000"}, ("samples", "4000")),
        ({"window": "513"}, ("window", "513", "512")),
    ],
)
def test_a_mistake_is_one_line_that_names_the_field(
    artifacts: Path, tiny_model: Path, stories: Path, capsys: pytest.CaptureFixture, changed: dict, says: tuple
):
    words = {"model": str(tiny_model), "budget": "0.4", "importance": "wanda_sp", "samples": "4", "window": "32"}
    words |= {"calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]", "round-to": "8"} | changed
    assert main(["slice", *(word for name, value in words.items() for word in (f"--{name}", value))]) == 2
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if not line.startswith("espalier: watch this run")]
    assert (printed.out, len(lines)) == ("", 1), printed.err
    assert all(part in lines[0] for part in says), lines[0]
    assert not (artifacts / "store" / "scores").exists()


def test_the_help_names_the_forms_in_the_order_in_which_they_are_taken():
    say_slice(made := Words())
    [export] = [action for action in made._actions if action.dest == "export"]
    for said in (export.help, Slice.model_fields["export"].description):
        _, by_default = said.split("by default")
        assert re.findall("|".join(FORMS), by_default) == [*BEST_FORMS]


def test_shares_of_blocks_are_read_from_a_file_and_many_are_named_by_their_content(tmp_path: Path):
    file = tmp_path / "shares.json"
    file.write_text("[0.2, 0.4]")
    assert Slice.parse(allocator=str(file)) == Slice.parse(allocator=[0.2, 0.4])
    names = {Slice.parse(allocator=[0.2 + tilt, 0.4 - tilt] * 10).name for tilt in (0.0, 0.01)}
    assert len(names) == 2
    assert all(re.fullmatch(r"wanda_sp\+shares:[0-9a-f]{6}\+repair", name) for name in names)


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"budget": 0.25, "importance": parse_importance("leave_one_out,kinds=channels"), "units": ("channels",)},
        {"repair": False, "export": "padded", "round_to": 32, "speed": False, "window": 128, "seed": 3},
        {"recover_tokens": 100_000, "recover_rate": 0.001, "measure_units": 5, "sampling": "first"},
        {"units": ("blocks",), "importance": parse_importance("influence")},
        {"units": ("attention", "ffn"), "importance": parse_importance("leave_one_out,kinds=attention+ffn")},
        {"cost": "kv", "budget": 0.5},
        {"cost": "flops", "allocator": "[0.25, 0.35]"},
        {"recover_tokens": 10**6, "recover_batch": 8, "recover_at_once": 2, "recover_recompute": True},
    ],
)
def test_the_command_of_a_run_repeats_it(words: dict):
    parameters = Slice.parse(**words)
    again = build_parser().parse_args(shlex.split(parameters.command())[1:])
    assert slice_of(again) == parameters
    assert Slice.model_validate_json(parameters.model_dump_json()) == parameters
