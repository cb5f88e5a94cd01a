"""The whole run of `activation` on a tiny model, with a real server, real files and real tables."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from flows.activation import sparsify_inputs
from flows.activation_choices import Activation, parse_learn, parse_mitigations, parse_selection
from flows.choices import Oneshot, Sweep
from flows.cli import main
from flows.methods import parse_allocation, parse_pruner
from flows.outcome import Outcome
from flows.sweep import sweep
from tasks.evaluate.perplexity import perplexity
from tasks.model.load import fingerprint, load_model
from tasks.prune import MITIGATIONS, SELECTIONS
from tasks.prune.activation.folder import load_sparse
from tasks.record import home
from tasks.record.registry.tracking import tracking
from tasks.record.registry.versions import load_registered
from tasks.record.runs.listing import runs_table
from tests.flows.runs import rows_of, sharing, stages_of

PAGE = (Path(__file__).parents[2] / "docs" / "sparse-inputs.md").read_text(encoding="utf-8")
CACHED = {"tokenize calibration", "tokenize evaluation", "sparsify", "evaluate dense", "evaluate sparse"}
METHODS = {**SELECTIONS, **MITIGATIONS}
INPUTS = {"self_attn.q_proj+self_attn.k_proj+self_attn.v_proj", "self_attn.o_proj"}
INPUTS |= {"mlp.gate_proj+mlp.up_proj", "mlp.down_proj"}


@pytest.fixture(scope="module")
def words(tiny_model: Path, stories: Path) -> dict:
    texts = {"calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]"}
    shared = {"model": str(tiny_model), "samples": 8, "window": 32, "speed": False}
    return {"selection": parse_selection("topk"), "pattern": "50%", **texts, **shared}


@pytest.fixture(scope="module")
def runs(server: str, words: dict, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """Several runs in one artifacts folder, so that what they share is computed once."""
    threshold = {"selection": parse_selection("threshold")}
    changes: dict[str, dict] = {
        "first": {},
        "again": {"speed": True},
        "modules": {"modules": ("down_proj",), "speed": True, "prefill": "dense"},
        "learned": threshold
        | {"mitigation": parse_mitigations("ls"), "learn": parse_learn("rate=0.01,epochs=2,patience=1")},
        "greedy": threshold | {"greedy": 0.1},
        "divided": {"allocation": parse_allocation("[0.25, 0.75]")},
    }
    with sharing(server, tmp_path_factory.mktemp("activation") / "artifacts"):
        yield {name: sparsify_inputs(Activation.parse(**words | changed)) for name, changed in changes.items()}


def test_what_a_run_stores_is_loaded_upon_the_dense_model_and_scores_what_its_row_says(
    runs: dict[str, Outcome], tiny_model: Path
):
    for name in ("first", "learned", "greedy"):
        outcome = runs[name]
        model = load_model(tiny_model)
        load_sparse(model, fingerprint(tiny_model), Path(outcome.checkpoint), METHODS)
        [ids] = [load_file(file)["ids"] for file in home.root().glob("store/tokens/*/*.safetensors") if is_whole(file)]
        assert perplexity(model, ids, window=32).nll == pytest.approx(outcome.result.nll, abs=1e-6)
        assert outcome.result.nll != outcome.dense.nll


def is_whole(file: Path) -> bool:
    """Whether these tokens are an evaluation's: one text, not windows."""
    return load_file(file)["ids"].dim() == 1


def test_a_run_leaves_a_row_for_every_input_and_a_page(runs: dict[str, Outcome]):
    outcome = runs["first"]
    rows = rows_of("sparse_inputs", outcome)
    assert {(row["block"], row["linears"]) for row in rows} == {(block, name) for block in (0, 1) for name in INPUTS}
    for row in rows:
        assert (row["asked"], row["dropped"], row["threshold"]) == (0.5, 0.5, None)  # topk meets it in each token
        assert 0.5 < row["energy_kept"] < 1  # the larger half has more than half of the energy
    assert outcome.result.sparsity == 0.5
    [run] = rows_of("runs", outcome)
    assert (run["flow"], run["method"], run["pattern"]) == ("activation", "topk", "50%")
    assert run["registered_version"] in Path(outcome.report).read_text()
    assert outcome.run in runs_table()
    page = Path(outcome.report).read_text()
    assert f"{outcome.result.ppl:.2f}" in page
    assert "Sparse inputs" in page
    assert stages_of(outcome) == dict.fromkeys(CACHED, False)


def test_what_a_run_registers_is_loaded_upon_the_dense_model_and_scores_the_same(
    runs: dict[str, Outcome], tiny_model: Path
):
    outcome = runs["learned"]
    name, version = rows_of("runs", outcome)[0]["registered_version"].split("/")
    model, _ = load_registered(name, version)
    [ids] = [load_file(file)["ids"] for file in home.root().glob("store/tokens/*/*.safetensors") if is_whole(file)]
    assert perplexity(model, ids, window=32).nll == pytest.approx(outcome.result.nll, abs=1e-6)
    with tracking() as client:
        found = client.get_model_version(name, version)
        metrics = client.get_run(found.run_id).data.metrics
    assert found.tags["model_hash"] == fingerprint(tiny_model)
    assert (found.tags["run"], found.tags["dense"]) == (outcome.run, str(tiny_model))
    assert (metrics["ppl"], metrics["sparsity"]) == (outcome.result.ppl, outcome.result.sparsity)


def test_a_second_run_computes_nothing(runs: dict[str, Outcome]):
    assert stages_of(runs["again"]) == dict.fromkeys(CACHED, True) | {"time sparse": False}  # which was not asked first
    assert runs["again"].checkpoint == runs["first"].checkpoint
    assert len(rows_of("sparse_inputs", runs["again"])) == 8


def test_of_some_modules_the_rows_and_the_share_of_all_weights_are_theirs(runs: dict[str, Outcome]):
    outcome = runs["modules"]
    assert {row["linears"] for row in rows_of("sparse_inputs", outcome)} == {"mlp.down_proj"}
    down, others = 64 * 32, (2 * 32 + 2 * 16) * 32 + 2 * 64 * 32
    assert outcome.result.sparsity == pytest.approx(0.5 * down / (down + others))
    assert outcome.result.nll < runs["first"].result.nll + 1  # it is a score, of a model that computes
    assert rows_of("runs", outcome)[0]["method"] == "topk+dense prefill on down_proj"


def test_learning_never_makes_a_block_worse_on_what_was_held_out(runs: dict[str, Outcome]):
    outcome = runs["learned"]
    assert all(row["threshold"] > 0 for row in rows_of("sparse_inputs", outcome))
    learned = rows_of("learned", outcome)
    assert [row["block"] for row in learned] == [0, 1]
    assert all(row["error_to"] <= row["error_from"] for row in learned)
    assert any(row["error_to"] < row["error_from"] for row in learned)
    assert rows_of("learned", runs["first"]) == []
    assert "Learned corrections" in Path(outcome.report).read_text()


def test_a_greedy_division_gives_inputs_shares_of_their_own_and_a_block_what_was_asked(runs: dict[str, Outcome]):
    rows = rows_of("sparse_inputs", runs["greedy"])
    assert all(abs(row["dropped"] - row["asked"]) < 0.05 for row in rows)  # thresholds from 8 windows of 32 tokens
    assert len({row["asked"] for row in rows}) > 2
    for block in (0, 1):
        own = [row for row in rows if row["block"] == block]
        weights = [row["in_features"] * row["out_features"] for row in own]
        asked = sum(row["asked"] * weight for row, weight in zip(own, weights, strict=True)) / sum(weights)
        assert asked == pytest.approx(0.5, abs=1e-4)


def test_an_allocation_gives_each_block_its_share_and_the_model_what_was_asked(runs: dict[str, Outcome]):
    outcome = runs["divided"]
    assert {(row["block"], row["asked"], row["dropped"]) for row in rows_of("sparse_inputs", outcome)} == {
        (0, 0.25, 0.25),
        (1, 0.75, 0.75),
    }
    assert outcome.result.sparsity == 0.5
    assert rows_of("runs", outcome)[0]["method"] == "topk+given,sparsities=0.25+0.75"
    assert stages_of(outcome)["allocate"] is False


def test_speed_is_timed_beside_dense_and_a_product_is_measured_once(runs: dict[str, Outcome]):
    timed, later = runs["again"], runs["modules"]
    assert {(row.subject, row.phase) for row in timed.speeds} == {
        (subject, phase) for subject in ("dense", "pruned") for phase in ("prefill", "decode")
    }
    products = rows_of("products", timed)
    assert {(row["in_features"], row["out_features"]) for row in products} == {(32, 64), (32, 32), (32, 128), (64, 32)}
    assert {row["tokens"] for row in products} == {1, 2, 4, 8}
    taken = {(row["in_features"], row["tokens"]): (row["dense_ms"], row["sparse_ms"]) for row in products}
    again = rows_of("products", later)
    assert len(again) == 4
    assert all(taken[64, row["tokens"]] == (row["dense_ms"], row["sparse_ms"]) for row in again)  # to the last bit
    assert "Products" in Path(timed.report).read_text()


def test_the_score_is_of_sparse_tokens_however_prompts_are_read(runs: dict[str, Outcome]):
    assert abs(runs["modules"].result.nll - runs["modules"].dense.nll) > 1e-6
    index = json.loads((Path(runs["modules"].checkpoint) / "activation.json").read_text())
    assert index["prefill"] == "dense"


def test_points_of_sparse_inputs_and_of_sparse_weights_share_a_sweep(runs: dict[str, Outcome], words: dict):
    shared = {name: value for name, value in words.items() if name != "selection"}
    points = (Activation.parse(**words), Oneshot.parse(pruner=parse_pruner("magnitude"), **shared))
    outcome = sweep(Sweep(name="both", points=points))
    inputs, weights = outcome.outcomes
    assert (inputs.result.sparsity, weights.result.sparsity) == (0.5, 0.5)
    assert inputs.result.nll == runs["first"].result.nll
    page = Path(outcome.report).read_text()
    assert all(f"{point.result.ppl:.2f}" in page for point in outcome.outcomes)


def test_json_has_what_programs_read(artifacts: Path, tiny_model: Path, stories: Path, capsys: pytest.CaptureFixture):
    words = {"model": tiny_model, "calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]"}
    words |= {"samples": 8, "window": 32, "selection": "nm", "pattern": "8:16", "mitigation": "dpts,centre=median"}
    given = [str(word) for name, value in words.items() for word in (f"--{name}", value)]
    assert main(["activation", *given, "--modules", "gate_proj,up_proj", "--no-speed", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (Path(outcome["checkpoint"]) / "activation.json").is_file()
    assert outcome["result"].keys() == outcome["dense"].keys()
    assert outcome["result"]["sparsity"] == pytest.approx(0.5 * 128 * 32 / ((32 + 32 + 16 + 16) * 32 + 3 * 64 * 32))
    assert outcome["dense"]["sparsity"] == 0


def test_the_pages_program_reads_a_part(
    runs: dict[str, Outcome],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "load_sparse" in block)
    (tmp_path / "my-llama").symlink_to(tiny_model)
    (tmp_path / "sparse").symlink_to(runs["learned"].checkpoint)
    monkeypatch.chdir(tmp_path)
    program: dict[str, Any] = {}
    exec(code, program)
    assert capsys.readouterr().out == "threshold 50%\n"
    assert torch.isfinite(program["model"](torch.zeros(1, 1, dtype=torch.long)).logits).all()
