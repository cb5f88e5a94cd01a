"""The whole run of `slice` on a tiny model, with a real server, real files and a real registry."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import mlflow
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from flows.choices import Slice, Sweep
from flows.cli import main
from flows.methods import parse_importance
from flows.outcome import Outcome
from flows.slice import slice_model
from flows.sweep import sweep
from flows.terminal import outcome_json, show_end
from tasks.record.registry.tracking import tracking
from tasks.record.registry.versions import load_registered
from tasks.recover import task as recover_task
from tasks.stage import StageFailed
from tests.flows.runs import rows_of, sharing, stages_of
from tests.flows.tiny import BLOCK, CHANNEL, HEAD_GROUP

CACHED = {"tokenize calibration", "tokenize evaluation", "score units", "slice checkpoint"}
CACHED |= {"evaluate dense", "evaluate sliced"}
PHASES = ("prefill", "decode")


@pytest.fixture(scope="module")
def words(tiny_model: Path, stories: Path) -> dict:
    texts = {"calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]"}
    shared = {"model": str(tiny_model), "samples": 8, "window": 32, "round_to": 8, "speed": False}
    return {"budget": 0.4, "importance": parse_importance("wanda_sp"), **texts, **shared}


@pytest.fixture(scope="module")
def runs(server: str, words: dict, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """Several runs in one artifacts folder, so that what they share is computed once."""
    changes: dict[str, dict] = {
        "first": {},
        "again": {},
        "smaller": {"budget": 0.2},
        "plain": {"repair": False, "measure_units": 4},
        "trained": {"recover_tokens": 32 * 16 * 20, "recover_rate": 3e-3},
        "per layer": {"export": "per_layer"},
        "timed": {"speed": True},
        "cache": {"cost": "kv", "budget": 0.5},
        "shares": {"cost": "flops", "allocator": "[0.2, 0.6]"},
        "blocks": {"importance": parse_importance("influence"), "units": ("blocks",), "budget": 0.5, "round_to": 64},
        "parts": {
            "importance": parse_importance("influence"),
            "units": ("attention", "ffn"),
            "budget": 0.5,
            "round_to": 64,
            "measure_units": 3,
        },
    }
    with sharing(server, tmp_path_factory.mktemp("slices") / "artifacts"):
        yield {name: slice_model(Slice.parse(**words | changed)) for name, changed in changes.items()}


def parameters_of(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_a_run_leaves_a_smaller_model_that_stock_transformers_loads(runs: dict[str, Outcome]):
    outcome = runs["first"]
    model = AutoModelForCausalLM.from_pretrained(outcome.checkpoint)
    assert type(model) is LlamaForCausalLM
    assert outcome.result.parameters == parameters_of(model)
    gone = (outcome.dense.parameters - outcome.result.parameters) / (2 * BLOCK)
    assert abs(gone - 0.4) <= 8 * CHANNEL / 2 / BLOCK  # half a step of channels
    for row, block in zip(rows_of("slices", outcome), model.model.layers, strict=True):
        assert (row["parameters_before"], row["parameters"]) == (BLOCK, parameters_of(block))
        assert (row["head_groups_before"], row["head_groups"]) == (2, block.self_attn.k_proj.out_features // 8)
        assert (row["channels_before"], row["channels"]) == (64, block.mlp.down_proj.in_features)
        assert 0 < row["repaired_error"] < row["cut_error"]


def test_a_run_leaves_rows_a_version_and_a_page(runs: dict[str, Outcome]):
    outcome = runs["first"]
    counts = Counter(row["kind"] for row in rows_of("units", outcome))
    assert counts == {"head_groups": 4, "query_heads": 8, "channels": 128}
    assert rows_of("importances", outcome) == []  # nothing was measured
    [run] = rows_of("runs", outcome)
    assert (run["flow"], run["method"], run["pattern"]) == ("slice", "wanda_sp+repair", "-40%")
    registered, tokenizer = load_registered(*run["registered_version"].rsplit("/"))
    assert tokenizer("tree")["input_ids"]
    state = AutoModelForCausalLM.from_pretrained(outcome.checkpoint).state_dict()
    assert all(torch.equal(value, registered.state_dict()[name]) for name, value in state.items())
    assert f"{outcome.result.ppl:.2f}" in Path(outcome.report).read_text()
    assert stages_of(outcome) == dict.fromkeys(CACHED, False)


def test_a_second_run_computes_nothing_and_one_at_another_budget_only_what_follows_the_scores(runs: dict[str, Outcome]):
    assert stages_of(runs["again"]) == dict.fromkeys(CACHED, True)
    assert runs["again"].checkpoint == runs["first"].checkpoint
    assert len(rows_of("slices", runs["again"])) == 2
    new = {"slice checkpoint": False, "evaluate sliced": False}
    assert stages_of(runs["smaller"]) == dict.fromkeys(CACHED, True) | new
    assert runs["first"].result.parameters < runs["smaller"].result.parameters < runs["first"].dense.parameters


def test_without_repair_the_errors_are_those_of_the_cut_alone(runs: dict[str, Outcome]):
    assert runs["plain"].checkpoint != runs["first"].checkpoint
    assert rows_of("runs", runs["plain"])[0]["method"] == "wanda_sp"
    assert all(row["cut_error"] > 0 and row["repaired_error"] is None for row in rows_of("slices", runs["plain"]))


def test_scores_are_held_against_measured_losses_where_that_is_asked_for(runs: dict[str, Outcome]):
    held = rows_of("importances", runs["plain"])
    assert sorted((row["kind"], row["sampled"], row["units"]) for row in held) == [
        ("channels", 4, 128),
        ("head_groups", 4, 4),
    ]
    assert all(-1 <= row["correlation"] <= 1 for row in held)
    measured = Counter(row["kind"] for row in rows_of("units", runs["plain"]) if row["loss_without"] is not None)
    assert measured == {"channels": 4, "head_groups": 4}


def test_recovery_trains_what_is_left_and_says_on_what(runs: dict[str, Outcome]):
    cut, trained = runs["first"], runs["trained"]
    assert trained.checkpoint != cut.checkpoint
    assert rows_of("runs", trained)[0]["method"] == "wanda_sp+repair+recover,tokens=10240"
    assert trained.result.parameters == cut.result.parameters
    assert trained.result.nll < cut.result.nll
    [row] = rows_of("recoveries", trained)
    assert (row["steps"], row["windows"], row["read"], row["learned"]) == (20, 320, 320 * 32, 320 * 31)
    assert 0 < row["distinct"] < 320  # the text is shorter than that
    assert row["last_loss"] < row["first_loss"]
    assert {row["role"] for row in rows_of("datasets", trained)} == {"calibration", "recovery", "evaluation"}


def test_the_speed_is_forecast_before_the_cut_and_held_against_what_is_measured(runs: dict[str, Outcome]):
    assert [*stages_of(runs["timed"])].index("forecast speed") < [*stages_of(runs["timed"])].index("slice checkpoint")
    rows = {row["phase"]: row for row in rows_of("forecasts", runs["timed"])}
    measured = {row["phase"]: row["ratio"] for row in rows_of("speeds", runs["timed"]) if row["subject"] == "pruned"}
    assert rows.keys() == measured.keys() == {"prefill", "decode"}
    for phase, row in rows.items():
        assert row["measured_ratio"] == measured[phase]
        assert row["error"] == pytest.approx(row["forecast_ratio"] / measured[phase] - 1)
    assert "Speed forecast" in Path(runs["timed"].report).read_text()
    assert rows_of("forecasts", runs["first"]) == []


def test_programs_and_people_are_told_what_really_went_and_how_well_the_speed_was_forecast(
    runs: dict[str, Outcome], capsys: pytest.CaptureFixture
):
    timed, plain = (json.loads(json.dumps(outcome_json(runs[name]))) for name in ("timed", "blocks"))
    gone = (timed["dense"]["parameters"] - timed["result"]["parameters"]) / (2 * BLOCK)
    assert (timed["cut"]["cost"], timed["cut"]["asked"], timed["cut"]["form"]) == ("parameters", 0.4, "uniform")
    assert timed["cut"]["removed"] == pytest.approx(gone)
    for row in rows_of("forecasts", runs["timed"]):
        told = timed["forecasts"][row["phase"]]
        assert told.items() <= row.items()
        assert told["error"] == pytest.approx(told["forecast_ratio"] / told["measured_ratio"] - 1)
    assert timed["forecasts"].keys() == {*PHASES}
    assert plain["cut"]["removed"] == 0.5
    assert "forecasts" not in plain

    show_end(runs["timed"].run, runs["timed"].report, aside=True, model=runs["timed"].checkpoint)
    said = capsys.readouterr().err
    assert f"\nmodel    {runs['timed'].checkpoint}\nreport   {runs['timed'].report}\n" in said
    assert "40.0 % of the parameters of the blocks were to go" in said
    assert all(f"{phase} forecast at" in said for phase in PHASES)


def test_a_model_with_its_own_modeling_file_is_scored_registered_and_loaded_by_mlflow_alone(runs: dict[str, Outcome]):
    uniform, other = runs["first"], runs["per layer"]
    assert other.checkpoint != uniform.checkpoint
    assert other.result.nll == pytest.approx(uniform.result.nll, rel=1e-5)
    for outcome in (uniform, other):
        name, version = rows_of("runs", outcome)[0]["registered_version"].rsplit("/")
        model, _ = load_registered(name, version)
        assert parameters_of(model) == outcome.result.parameters
        with tracking():
            [continuation] = mlflow.pyfunc.load_model(f"models:/{name}/{version}").predict(["the tree grows"])
        assert continuation


def test_whole_blocks_go_by_their_influence(runs: dict[str, Outcome]):
    outcome = runs["blocks"]
    assert AutoModelForCausalLM.from_pretrained(outcome.checkpoint).config.num_hidden_layers == 1
    assert outcome.dense.parameters - outcome.result.parameters == BLOCK
    assert {row["kind"] for row in rows_of("units", outcome)} == {"blocks"}
    [run] = rows_of("runs", outcome)
    assert (run["method"], run["pattern"]) == ("influence", "-50%@blocks")
    [gone] = rows_of("removals", outcome)
    [left] = rows_of("slices", outcome)
    scores = {row["block"]: row["score"] for row in rows_of("units", outcome) if row["kind"] == "blocks"}
    assert (gone["score"], gone["parameters"], left["block"]) == (scores.pop(gone["block"]), BLOCK, 0)
    assert gone["score"] <= min(scores.values())


def test_attentions_and_ffns_go_by_their_influence(runs: dict[str, Outcome]):
    outcome = runs["parts"]
    [run] = rows_of("runs", outcome)
    assert (run["method"], run["pattern"]) == ("influence", "-50%@attention+ffn")
    scores = {(row["block"], row["kind"]): row["score"] for row in rows_of("units", outcome)}
    gone = {(row["block"], row["kind"]): row for row in rows_of("removals", outcome)}
    assert all(row["score"] == scores[piece] for piece, row in gone.items())
    staying = max(score for (_, kind), score in scores.items() if kind == "attention")
    assert {piece for piece, score in scores.items() if score < max(row["score"] for row in gone.values())} <= {
        *gone,
        *(piece for piece, score in scores.items() if score == staying),
    }
    parts = {"attention": 2 * HEAD_GROUP, "ffn": 64 * CHANNEL}
    assert all(row["parameters"] == parts[kind] for (_, kind), row in gone.items())
    lost = sum(row["parameters"] for row in gone.values())
    assert outcome.dense.parameters - outcome.result.parameters == lost
    for row in rows_of("slices", outcome):
        assert (row["head_groups_before"], row["channels_before"], row["parameters_before"]) == (2, 64, BLOCK)
        assert (row["head_groups"] is None) == ((row["block"], "attention") in gone)
        assert (row["channels"] is None) == ((row["block"], "ffn") in gone)
    [cut] = rows_of("cuts", outcome)
    assert (cut["form"], cut["removed"]) == ("per_layer", pytest.approx(lost / (2 * BLOCK)))
    assert cut["passed_over"].startswith("uniform: block ")
    held = {row["kind"]: (row["units"], row["sampled"], row["correlation"]) for row in rows_of("importances", outcome)}
    assert held == {"attention": (2, 2, None), "ffn": (2, 2, None)}  # of two units none is told
    assert "Without their " in Path(outcome.report).read_text()


def test_a_budget_of_the_cache_takes_heads_alone(runs: dict[str, Outcome]):
    outcome = runs["cache"]
    assert outcome.dense.parameters - outcome.result.parameters == 2 * HEAD_GROUP
    assert rows_of("runs", outcome)[0]["pattern"] == "-50%kv"


def test_each_block_gives_up_its_own_share(runs: dict[str, Outcome]):
    outcome, tokens = runs["shares"], 512  # the context
    keys = tokens * (tokens + 1) // 2 * 2 * 8  # multiplications of a query head with all keys and values
    step = 2 * tokens * 8 * CHANNEL
    for row, share in zip(rows_of("slices", outcome), (0.2, 0.6), strict=True):
        heads, channels = 2 - row["head_groups"], 64 - row["channels"]
        group = 2 * (tokens * HEAD_GROUP + 2 * keys)
        gone = heads * group + channels * 2 * tokens * CHANNEL
        assert abs(gone - share * (2 * group + 64 * 2 * tokens * CHANNEL)) <= step / 2
    [run] = rows_of("runs", outcome)
    assert (run["method"], run["pattern"]) == ("wanda_sp+shares=0.2+0.6+repair", "-40%flops")


def test_the_budget_is_divided_between_heads_and_channels_by_the_loss(runs: dict[str, Outcome]):
    ways = rows_of("splits", runs["first"])
    assert {row["heads_removed"] for row in ways} == {0, 1}
    [chosen] = [row for row in ways if row["chosen"]]
    assert chosen["repaired_loss"] == min(row["repaired_loss"] for row in ways)  # two, so that both were tried
    assert chosen["parameters"] == runs["first"].result.parameters
    assert {row["head_groups"] for row in rows_of("slices", runs["first"])} == {2 - chosen["heads_removed"]}
    assert len(rows_of("splits", runs["again"])) == 2
    assert rows_of("splits", runs["blocks"]) == []


def test_a_sweep_compares_cuts_beside_each_other(runs: dict[str, Outcome], words: dict):
    points = tuple(Slice.parse(**words | {"budget": budget}) for budget in (0.2, 0.4))
    outcome = sweep(Sweep(name="two", points=points))
    assert [point.checkpoint for point in outcome.outcomes] == [runs["smaller"].checkpoint, runs["first"].checkpoint]
    page = Path(outcome.report).read_text()
    assert "Perplexity against what it bought" in page
    assert "-20%" in page
    assert {row["sweep"] for point in outcome.outcomes for row in rows_of("runs", point)} == {outcome.run}


def test_a_recovery_that_was_stopped_goes_on_to_the_same_weights(
    artifacts: Path, words: dict, runs: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch
):
    @contextmanager
    def stopping(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
        def reach(done: int) -> None:
            if done == 12:
                raise OSError("stopped")
            reached.append(done)

        yield reach

    reached: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(recover_task, "CHECKPOINT_EVERY", 5)
        patch.setattr(recover_task, "progress", stopping)
        parameters = Slice.parse(**words, recover_tokens=32 * 16 * 20, recover_rate=3e-3)
        with pytest.raises(StageFailed, match="stage recover checkpoint: stopped"):
            slice_model(parameters)
        assert reached == [*range(1, 12)]
        patch.setattr(recover_task, "progress", lambda *_, **__: nullcontext(reached.append))
        outcome = slice_model(parameters)
    assert reached == [*range(1, 12), *range(11, 21)]  # from the state of step 10
    assert Path(outcome.checkpoint).name == Path(runs["trained"].checkpoint).name


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
    assert outcome["cut"].keys() == {"cost", "context", "asked", "removed", "removed_flops", "form", "passed_over"}
    assert outcome["dense"].keys() >= {"ppl", "nll", "tokens", "windows", "parameters", "size_bytes", "sparsity"}
    assert Path(outcome["report"]).is_file()
