"""The whole run of `slice` on a tiny model, with a real server, real files and a real registry."""

import json
import shlex
from pathlib import Path

import mlflow
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from flows.choices import Slice
from flows.cli import build_parser, main, slice_of
from flows.methods import parse_importance
from flows.outcome import Outcome
from flows.slice import slice_model
from tasks.record.metrics import query
from tasks.record.registry import load_registered
from tasks.record.tracking import tracking
from tasks.stage import StageFailed

CACHED = {"tokenize calibration", "tokenize evaluation", "score units", "slice checkpoint"}
CACHED |= {"evaluate dense", "evaluate sliced"}
HEAD_GROUP = (2 + 1 + 1 + 2) * 8 * 32  # of the tiny model: rows of q, k and v, columns of o
CHANNEL = 3 * 32
BLOCK = 2 * HEAD_GROUP + 64 * CHANNEL + 2 * 32


@pytest.fixture
def words(tiny_model: Path, stories: Path) -> dict:
    texts = {"calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]"}
    shared = {"model": str(tiny_model), "samples": 8, "window": 32, "round_to": 8, "speed": False}
    return {"budget": 0.4, "importance": parse_importance("wanda_sp"), **texts, **shared}


def stages_of(outcome: Outcome) -> dict[str, bool]:
    rows = query("select stage, cached from stages where run = ?", [outcome.run])
    return {row["stage"]: row["cached"] for row in rows}


def test_a_run_leaves_a_smaller_model_that_stock_transformers_loads_rows_a_version_and_a_page(
    artifacts: Path, words: dict
):
    outcome = slice_model(Slice.parse(**words))
    model = AutoModelForCausalLM.from_pretrained(outcome.checkpoint)
    assert type(model) is LlamaForCausalLM
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert outcome.result.parameters == counted
    gone = (outcome.dense.parameters - counted) / (2 * BLOCK)
    assert abs(gone - 0.4) <= 8 * CHANNEL / 2 / BLOCK  # half a step of channels

    slices = query("select * from slices order by block")
    for row, block in zip(slices, model.model.layers, strict=True):
        assert row["parameters_before"] == BLOCK
        assert row["parameters"] == sum(parameter.numel() for parameter in block.parameters())
        assert (row["head_groups_before"], row["head_groups"]) == (2, block.self_attn.k_proj.out_features // 8)
        assert (row["channels_before"], row["channels"]) == (64, block.mlp.down_proj.in_features)
        assert 0 < row["repaired_error"] < row["cut_error"]
    kinds = query("select kind, count(*) as n from units where importance = 'wanda_sp' group by kind order by kind")
    assert [(row["kind"], row["n"]) for row in kinds] == [("channels", 128), ("head_groups", 4), ("query_heads", 8)]
    assert query("select * from importances") == []  # nothing was measured

    [run] = query("select flow, method, pattern, registered_version from runs")
    assert (run["flow"], run["method"], run["pattern"]) == ("slice", "wanda_sp+repair", "-40%")
    registered, tokenizer = load_registered(*run["registered_version"].rsplit("/"))
    assert tokenizer("tree")["input_ids"]
    assert all(torch.equal(value, registered.state_dict()[name]) for name, value in model.state_dict().items())
    assert f"{outcome.result.ppl:.2f}" in Path(outcome.report).read_text()
    assert stages_of(outcome) == dict.fromkeys(CACHED, False)


def test_a_second_run_computes_nothing_and_one_at_another_budget_only_what_follows_the_scores(
    artifacts: Path, words: dict
):
    first, second = slice_model(Slice.parse(**words)), slice_model(Slice.parse(**words))
    assert stages_of(second) == dict.fromkeys(CACHED, True)
    assert first.checkpoint == second.checkpoint
    assert len(query("select distinct run from slices")) == 2
    third = slice_model(Slice.parse(**words | {"budget": 0.2}))
    assert stages_of(third) == dict.fromkeys(CACHED, True) | {"slice checkpoint": False, "evaluate sliced": False}
    assert first.result.parameters < third.result.parameters < first.dense.parameters


def test_repair_is_what_makes_the_difference(artifacts: Path, words: dict):
    repaired, plain = slice_model(Slice.parse(**words)), slice_model(Slice.parse(**words, repair=False))
    assert repaired.checkpoint != plain.checkpoint
    methods = [row["method"] for row in query("select method from runs order by method")]
    assert methods == ["wanda_sp", "wanda_sp+repair"]
    errors = "select cut_error, repaired_error from slices where method = 'wanda_sp'"
    assert all(row["cut_error"] > 0 and row["repaired_error"] is None for row in query(errors))


def test_scores_are_held_against_measured_losses_where_that_is_asked_for(artifacts: Path, words: dict):
    slice_model(Slice.parse(**words, measure_units=4))
    for row in query("select * from importances"):
        assert row["sampled"] == 4
        assert -1 <= row["correlation"] <= 1
    measured = "select kind, count(*) as n from units where loss_without is not null group by kind order by kind"
    assert [(row["kind"], row["n"]) for row in query(measured)] == [("channels", 4), ("head_groups", 4)]


def test_recovery_trains_what_is_left_and_says_on_what(artifacts: Path, words: dict):
    cut, trained = (
        slice_model(Slice.parse(**words)),
        slice_model(Slice.parse(**words, recover_tokens=32 * 16 * 20, recover_rate=3e-3)),
    )
    assert trained.checkpoint != cut.checkpoint
    assert trained.result.parameters == cut.result.parameters
    assert trained.result.nll < cut.result.nll
    [row] = query("select * from recoveries")
    assert (row["steps"], row["windows"], row["read"], row["learned"]) == (20, 320, 320 * 32, 320 * 31)
    assert 0 < row["distinct"] < 320  # the text is shorter than that
    assert row["last_loss"] < row["first_loss"]
    assert {row["role"] for row in query("select role from datasets where run = ?", [trained.run])} == {
        "calibration",
        "recovery",
        "evaluation",
    }


@pytest.mark.parametrize("export", ["padded", "per_layer"])
def test_each_form_of_the_same_cut_has_the_same_score(artifacts: Path, words: dict, export: str):
    uniform, other = slice_model(Slice.parse(**words)), slice_model(Slice.parse(**words, export=export))
    assert (other.checkpoint == uniform.checkpoint) is (export == "padded")  # to one width there is nothing to pad
    assert other.result.nll == pytest.approx(uniform.result.nll, rel=1e-5)
    [run] = query("select registered_version from runs where run = ?", [other.run])
    name, version = run["registered_version"].rsplit("/")
    model, _ = load_registered(name, version)
    with tracking():  # as a program that knows MLflow alone
        [continuation] = mlflow.pyfunc.load_model(f"models:/{name}/{version}").predict(["the tree grows"])
    assert continuation
    assert sum(parameter.numel() for parameter in model.parameters()) == other.result.parameters


def test_whole_blocks_go_by_their_influence(artifacts: Path, words: dict):
    del words["round_to"]
    words |= {"importance": parse_importance("influence"), "units": ("blocks",), "budget": 0.5}
    outcome = slice_model(Slice.parse(**words))
    assert AutoModelForCausalLM.from_pretrained(outcome.checkpoint).config.num_hidden_layers == 1
    assert outcome.dense.parameters - outcome.result.parameters == BLOCK
    scores = query("select block, score from units where kind = 'blocks' order by score")
    assert len(scores) == 2
    [run] = query("select method, pattern from runs")
    assert (run["method"], run["pattern"]) == ("influence", "-50%@blocks")


def test_a_failing_stage_names_itself_and_what_was_finished_is_found_again(artifacts: Path, words: dict):
    (artifacts / "store").mkdir(parents=True)
    (artifacts / "store" / "checkpoints").write_text("a file where a folder must be")
    with pytest.raises(StageFailed, match="stage slice checkpoint"):
        slice_model(Slice.parse(**words))
    (artifacts / "store" / "checkpoints").unlink()
    again = stages_of(slice_model(Slice.parse(**words)))
    assert again["score units"] is True
    assert again["slice checkpoint"] is False


def test_json_has_what_programs_read(artifacts: Path, tiny_model: Path, stories: Path, capsys: pytest.CaptureFixture):
    words = {"model": tiny_model, "calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]", "budget": 0.4}
    words |= {"samples": 8, "window": 32, "round-to": 8, "importance": "weight_norm"}
    given = [str(word) for name, value in words.items() for word in (f"--{name}", value)]
    assert main(["slice", *given, "--no-speed", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out.splitlines()[-1])
    model = AutoModelForCausalLM.from_pretrained(outcome["checkpoint"])
    assert outcome["result"]["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert outcome["result"]["size_bytes"] < outcome["dense"]["size_bytes"]
    assert outcome["dense"].keys() == outcome["result"].keys()
    assert outcome["dense"].keys() >= {"ppl", "nll", "tokens", "windows", "parameters", "size_bytes", "sparsity"}
    assert Path(outcome["report"]).is_file()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"budget": "0"}, ("budget", "greater than 0")),
        ({"budget": "1"}, ("budget", "less than 1")),
        ({"budget": "half"}, ("budget", "half")),
        ({"budget": "0.95"}, ("budget: 0.95", "valid is 0 or", "head_groups")),
        ({"budget": "0.001"}, ("budget: 0.001", "valid is 0 or", "head_groups")),
        ({"importance": "tailor"}, ("importance", "tailor", "weight_norm, activation, wanda_sp, flap, taylor, fisher")),
        ({"importance": "influence"}, ("importance: influence", "channels, head_groups", "weight_norm, activation")),
        ({"importance": "leave_one_out,kinds=channels"}, ("importance", "head_groups")),
        ({"importance": "taylor,x=1"}, ("importance", "taylor", "x=1")),
        ({"units": "neurons"}, ("units: neurons", "head_groups, query_heads, channels", "blocks")),
        ({"units": "head_groups,query_heads"}, ("units", "cut one, then the other")),
        ({"units": "channels,channels"}, ("units", "channels, channels")),
        ({"units": "blocks"}, ("importance: wanda_sp", "blocks", "influence, leave_one_out")),
        ({"units": "blocks", "importance": "influence"}, ("round_to", "blocks")),
        ({"cost": "flops"}, ("cost", "parameters", "flops")),
        ({"allocator": "owl"}, ("allocator", "uniform", "owl")),
        ({"export": "gguf"}, ("export", "uniform", "padded", "per_layer", "gguf")),
        ({"round-to": "65"}, ("round_to: 65", "1 to the 64")),
        ({"round-to": "0"}, ("round_to", "0")),
        ({"samples": "1"}, ("samples", "hold out")),
        ({"measure-units": "2"}, ("measure_units: 2", "3 or more")),
        ({"recover-rate": "0.1"}, ("recover_rate", "recover_tokens")),
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


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"budget": 0.25, "importance": parse_importance("leave_one_out,kinds=channels"), "units": ("channels",)},
        {"repair": False, "export": "padded", "round_to": 32, "speed": False, "window": 128, "seed": 3},
        {"recover_tokens": 100_000, "recover_rate": 0.001, "measure_units": 5, "sampling": "first"},
        {"units": ("blocks",), "importance": parse_importance("influence")},
    ],
)
def test_the_command_of_a_run_repeats_it(words: dict):
    parameters = Slice.parse(**words)
    again = build_parser().parse_args(shlex.split(parameters.command())[1:])
    assert slice_of(again) == parameters
    assert Slice.model_validate_json(parameters.model_dump_json()) == parameters
