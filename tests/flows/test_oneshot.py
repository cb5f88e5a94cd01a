"""The whole run on a tiny model, with a real server, real files and a real registry."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from flows.choices import Oneshot
from flows.methods import parse_pruner
from flows.oneshot import Outcome, oneshot
from tasks.prune.pack import load_packed
from tasks.record.metrics import query
from tasks.record.registry.tracking import tracking
from tasks.record.registry.versions import load_registered
from tasks.stage import StageFailed
from tests.flows.runs import stages_of

CACHED = {"tokenize calibration", "tokenize evaluation", "prune", "pack", "evaluate dense", "evaluate pruned"}


@pytest.fixture
def parameters(tiny_model: Path, stories: Path) -> Oneshot:
    return Oneshot.parse(
        model=str(tiny_model),
        pruner=parse_pruner("wanda"),
        pattern="2:4",
        calibration=f"{stories}[:20]",
        evaluation=f"{stories}[20:]",
        samples=8,
        window=32,
        speed=False,
    )


def weights_of(outcome: Outcome) -> bytes:
    return (Path(outcome.checkpoint) / "model.safetensors").read_bytes()


def statuses() -> dict[str, str]:
    """The runs in MLflow: name -> how far it says each is."""
    with tracking() as client:
        experiment = client.get_experiment_by_name("espalier")
        return {run.data.tags["run"]: run.info.status for run in client.search_runs([experiment.experiment_id])}


def test_a_run_leaves_a_model_rows_a_registered_version_and_a_report(artifacts: Path, parameters: Oneshot):
    outcome = oneshot(parameters)
    model = AutoModelForCausalLM.from_pretrained(outcome.checkpoint)
    for block in model.model.layers:
        for linear in (module for module in block.modules() if isinstance(module, torch.nn.Linear)):
            assert ((linear.weight.reshape(-1, 4) != 0).sum(1) == 2).all()
    assert outcome.result.sparsity == 0.5
    assert outcome.dense.sparsity == 0.0

    packed = load_packed(Path(outcome.packed)).state_dict()
    assert all(torch.equal(value, packed[name]) for name, value in model.state_dict().items())
    assert statuses() == {outcome.run: "FINISHED"}
    [run] = query("select registered_version from runs")
    registered, _ = load_registered(*run["registered_version"].rsplit("/"))
    assert all(torch.equal(value, registered.state_dict()[name]) for name, value in model.state_dict().items())

    counts = {table: query(f"select count(*) as n from {table}")[0]["n"] for table in ("runs", "linears", "blocks")}
    assert counts == {"runs": 1, "linears": 14, "blocks": 2}
    assert {row["zeros"] * 2 == row["out_features"] * row["in_features"] for row in query("select * from linears")} == {
        True
    }
    page = Path(outcome.report).read_text()
    assert f"{outcome.result.ppl:.2f}" in page
    assert stages_of(outcome) == dict.fromkeys(CACHED, False)


def test_a_run_whose_last_row_cannot_be_written_is_finished_nowhere(artifacts: Path, parameters: Oneshot):
    (artifacts / "metrics").mkdir(parents=True)
    (artifacts / "metrics" / "runs").write_text("a file where a folder must be")
    with pytest.raises(StageFailed, match="stage publish"):
        oneshot(parameters)
    assert [*statuses().values()] == ["FAILED"]
    (artifacts / "metrics" / "runs").unlink()
    again = oneshot(parameters)
    assert sorted(statuses().values()) == ["FAILED", "FINISHED"]
    assert statuses()[again.run] == "FINISHED"
    assert [row["run"] for row in query("select run from runs")] == [again.run]


def test_a_second_run_computes_nothing_and_has_rows_of_its_own(artifacts: Path, parameters: Oneshot):
    first, second = oneshot(parameters), oneshot(parameters)
    assert first.run != second.run
    assert stages_of(second) == dict.fromkeys(CACHED, True)
    assert weights_of(first) == weights_of(second)
    evaluations = query("select run, subject, ppl from evaluations order by run, subject")
    assert len(evaluations) == 4
    assert evaluations[0]["ppl"] == evaluations[2]["ppl"]
    versions = query("select distinct registered_version from runs")
    assert len(versions) == 1  # the same bytes are one version


@pytest.mark.parametrize(("pruner", "looks"), [("magnitude", False), ("wanda", True)])
def test_rows_name_the_calibration_text_only_where_the_method_looked_at_it(
    artifacts: Path, parameters: Oneshot, pruner: str, looks: bool
):
    outcome = oneshot(parameters.model_copy(update={"pruner": parse_pruner(pruner)}))
    hash_of = {row["role"]: row["dataset_hash"] for row in query("select role, dataset_hash from datasets")}
    assert hash_of.keys() == ({"calibration", "evaluation"} if looks else {"evaluation"})
    for table in ("blocks", "linears"):
        [named] = query(f"select distinct dataset_hash from {table}")
        assert named["dataset_hash"] == hash_of.get("calibration", "")
    assert ("<td>" + parameters.calibration in Path(outcome.report).read_text()) is looks


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_damage_behind_a_cache_hit_is_noticed_and_repaired(
    artifacts: Path, parameters: Oneshot, damage: str, capsys: pytest.CaptureFixture
):
    first = oneshot(parameters)
    before = weights_of(first)
    weights = Path(first.checkpoint) / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(bytes([before[0] ^ 1]) + before[1:])
    capsys.readouterr()
    second = oneshot(parameters)
    assert weights_of(second) == before
    assert stages_of(second)["prune"] is False
    assert f"model.safetensors {'is missing' if damage == 'missing' else 'was altered'}" in capsys.readouterr().err


def test_a_torn_result_file_is_computed_again(artifacts: Path, parameters: Oneshot):
    oneshot(parameters)
    for result in (artifacts / "results").iterdir():
        if result.name.startswith("prune-"):
            result.write_bytes(result.read_bytes()[:20])
    second = oneshot(parameters)
    assert stages_of(second) == dict.fromkeys(CACHED, True) | {"prune": False}


def test_a_changed_text_is_not_taken_for_the_old_one(
    artifacts: Path, parameters: Oneshot, stories: Path, tmp_path: Path
):
    copy = tmp_path / "copy.jsonl"
    copy.write_text(stories.read_text())
    words = parameters.model_copy(update={"calibration": str(copy)})
    oneshot(words)
    copy.write_text(copy.read_text() + json.dumps({"text": "cut cut cut"}) + "\n")
    second = oneshot(words)
    assert stages_of(second) == dict.fromkeys(CACHED, True) | {"tokenize calibration": False, "prune": False} | {
        "pack": stages_of(second)["pack"],
        "evaluate pruned": stages_of(second)["evaluate pruned"],
    }


def test_a_failing_stage_names_itself_and_keeps_what_was_finished(
    artifacts: Path, parameters: Oneshot, monkeypatch: pytest.MonkeyPatch
):
    (artifacts / "store").mkdir(parents=True)
    (artifacts / "store" / "checkpoints").write_text("a file where a folder must be")
    with pytest.raises(StageFailed, match="stage prune"):
        oneshot(parameters)
    (artifacts / "store" / "checkpoints").unlink()
    again = oneshot(parameters)
    assert stages_of(again)["tokenize calibration"] is True
    assert stages_of(again)["prune"] is False
