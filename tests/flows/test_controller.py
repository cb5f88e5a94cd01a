"""The whole run of `controller` on a tiny model, with a real server, real files and a real registry."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from prefect.settings import PREFECT_API_URL, PREFECT_LOCAL_STORAGE_PATH, temporary_settings

from flows import controller
from flows.cli import main
from flows.controller import ControllerOutcome, train_controller
from flows.controller_choices import Controller
from flows.methods import parse_importance
from tasks.model.load import fingerprint, load_model
from tasks.prune.structure.profile_folder import load_profiles
from tasks.record.metrics import query
from tasks.record.registry.tracking import tracking
from tasks.train_controller.learn.policy_folder import load_policy
from tasks.train_controller.learn.table import Table
from tasks.train_controller.observation import FEATURES
from tasks.train_controller.task import read_table
from tests.flows.conftest import WORDS
from tests.flows.runs import rows_of, sharing, stages_of

ACTIONS = ("none", "ffn30", "none@window:0.5")
LEARNED = {"dqn", "bandit"}
GIVEN = {"oracle", "best fixed", "random", "dense"}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty prompts of their own words, each with what follows it."""
    path = tmp_path_factory.mktemp("prompts") / "asked.jsonl"
    generator = torch.Generator().manual_seed(1)
    rows = []
    for _ in range(30):
        words = [WORDS[index] for index in torch.randint(len(WORDS), (24,), generator=generator).tolist()]
        rows.append({"prompt": " ".join(words[:16]), "reference": " " + " ".join(words[16:])})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def words(tiny_model: Path, stories: Path, prompts: Path) -> dict:
    made = {"calibration": f"{stories}[:20]", "samples": 8, "window": 32, "round_to": 8}
    made |= {"actions": ",".join(ACTIONS[1:]), "importance": parse_importance("weight_norm")}
    return {"model": str(tiny_model), "prompts": str(prompts), "tokens": 4, "repetitions": 1, "seeds": 2} | made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("controller") / "artifacts"


@pytest.fixture(scope="module")
def runs(server: str, words: dict, folder: Path) -> Iterator[dict[str, ControllerOutcome]]:
    """Trained, then tested live, in one artifacts folder, so that what they share is computed once."""
    changes: dict[str, dict] = {"trained": {}, "tested": {"live": True}}
    with sharing(server, folder):
        yield {name: train_controller(Controller.parse(**words | changed)) for name, changed in changes.items()}


def test_a_policy_chooses_among_the_actions_of_the_very_model_and_profiles(
    runs: dict[str, ControllerOutcome], tiny_model: Path
):
    outcome = runs["trained"]
    [chosen] = outcome.chosen
    model_hash = fingerprint(tiny_model)
    profiles = load_profiles(load_model(tiny_model), model_hash, Path(outcome.profiles))
    assert profiles.names == ["none", "ffn30"]
    policy = load_policy(Path(chosen.folder), actions=ACTIONS, model_hash=model_hash)
    assert policy.floor == 0.05
    assert ACTIONS[policy.choose(torch.full((len(FEATURES),), 0.5))] in ACTIONS
    with pytest.raises(ValueError, match="policy: "):
        load_policy(Path(chosen.folder), model_hash="0" * 64)


def test_the_rows_are_a_whole_table_and_what_came_of_it(runs: dict[str, ControllerOutcome]):
    outcome = runs["trained"]
    asked = rows_of("prompts", outcome)
    assert {row["split"]: [each["split"] for each in asked].count(row["split"]) for row in asked} == {
        "train": 24,
        "test": 6,
    }
    assert all(0 <= value <= 1 for row in asked for value in json.loads(row["features"]).values())
    episodes = rows_of("episodes", outcome)
    assert {(row["prompt"], row["action"]) for row in episodes} == {
        (row["prompt"], action) for row in asked for action in ACTIONS
    }
    for row in episodes:
        if row["action"] == "none":
            assert (row["ratio"], row["rise"], row["kl"]) == (1.0, 0.0, 0.0)
        if row["action"] == "none@window:0.5":
            whole = next(each for each in episodes if each["prompt"] == row["prompt"] and each["action"] == "none")
            assert row["cache_bytes"] <= whole["cache_bytes"] * 0.6
    decided = rows_of("decisions", outcome)
    tested = {row["prompt"] for row in asked if row["split"] == "test"}
    assert {row["prompt"] for row in decided} == tested
    measured = {(row["prompt"], row["action"]): (row["ratio"], row["rise"]) for row in episodes}
    for row in decided:
        assert (row["ratio"], row["rise"]) == measured[row["prompt"], row["action"]]
        assert row["regret"] >= -1e-12 or row["rise"] > row["floor"]
    worth = {row["policy"]: row for row in rows_of("controllers", outcome)}
    assert worth.keys() == LEARNED | GIVEN
    assert all(worth[name]["seeds"] == 2 for name in (*LEARNED, "random"))
    assert worth["best fixed"]["gain"] == 0.0
    looked = {(row["learner"], row["learner_seed"]) for row in rows_of("learning", outcome)}
    assert looked == {(learner, seed) for learner in LEARNED for seed in range(2)}
    [table] = [row for row in rows_of("artifacts", outcome) if row["kind"] == "episodes"]
    assert (Path(outcome.profiles).parents[2] / table["folder"] / "episodes.json").is_file()


def test_a_test_finds_what_was_trained_and_answers_live(runs: dict[str, ControllerOutcome]):
    trained, tested = (stages_of(runs[name]) for name in ("trained", "tested"))
    assert not any(trained.values())
    assert tested.keys() - trained.keys() == {"answer prompts"}
    assert {name for name, cached in tested.items() if not cached} == {"answer prompts", "judge policies"}
    [chosen] = runs["tested"].chosen
    assert chosen.trained == runs["trained"].chosen[0].trained
    live = {row["policy"]: row for row in rows_of("controllers", runs["tested"]) if row["live"]}
    assert live.keys() == {chosen.trained.name, "best fixed", "dense"}
    assert live["best fixed"]["gain"] == 0.0
    assert (live["dense"]["mean_rise"], live["dense"]["decision_ms"]) == (0.0, None)
    assert chosen.live is not None
    assert chosen.live.ratio > 0
    assert 0 < chosen.live.decision_ms < 1000
    assert runs["trained"].chosen[0].live is None


def test_the_page_and_mlflow_have_the_policies(runs: dict[str, ControllerOutcome]):
    outcome = runs["tested"]
    page = Path(outcome.report).read_text(encoding="utf-8")
    assert all(f"<h2>{title}</h2>" in page for title in ("Policies", "Actions", "Figures", "Profiles"))
    assert f"{outcome.chosen[0].trained.name}, live" in page
    with tracking() as client:
        experiment = client.get_experiment_by_name("espalier").experiment_id
        [logged] = client.search_runs([experiment], f"tags.run = '{outcome.run}'")
        kept = {file.path for file in client.list_artifacts(logged.info.run_id, "policies/floor_0.05")}
    assert logged.info.status == "FINISHED"
    for row in rows_of("controllers", outcome):
        name = f"{row['policy'].replace(' ', '-')}_floor_0.05{'_live' if row['live'] else ''}_ratio"
        assert logged.data.metrics[name] == pytest.approx(row["ratio"])
    assert "dqn_floor_0.05_seed_1_reward" in logged.data.metrics
    assert "policies/floor_0.05/policy.safetensors" in kept


def test_what_was_measured_of_a_prompt_is_not_measured_again(
    runs: dict[str, ControllerOutcome], words: dict, folder: Path, server: str
):
    [kept] = (folder / "episodes").glob("*.json")
    before = json.loads(kept.read_text(encoding="utf-8"))["values"]
    assert len(before) == 30
    with sharing(server, folder):
        fewer = train_controller(Controller.parse(**words | {"prompt_limit": 20, "learner": one_learner()}))
    assert stages_of(fewer)["measure episodes"] is False
    assert json.loads(kept.read_text(encoding="utf-8"))["values"] == before
    own = {(row["prompt"], row["action"]): row["decode_ms"] for row in rows_of("episodes", fewer)}
    first = {(row["prompt"], row["action"]): row["decode_ms"] for row in rows_of("episodes", runs["trained"])}
    assert len(own) == 20 * len(ACTIONS)
    assert own.items() <= first.items()


def test_the_command_line_says_where_the_policy_is_and_how_to_use_it(
    runs: dict[str, ControllerOutcome],
    words: dict,
    folder: Path,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.setenv("PREFECT_API_URL", f"{server}/api")
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(folder))
    given = {name.replace("_", "-"): str(value) for name, value in words.items()}
    said = [word for name, value in given.items() for word in (f"--{name}", value)]
    with temporary_settings({PREFECT_API_URL: f"{server}/api", PREFECT_LOCAL_STORAGE_PATH: folder / "results"}):
        assert main(["controller", "test", *said, "--json"]) == 0
        printed = capsys.readouterr()
        outcome = json.loads(printed.out.splitlines()[-1])
        [found] = outcome["floors"]
        assert outcome["policies"] == [found["policy"]] == [runs["tested"].chosen[0].folder]
        assert f"--profiles {outcome['profiles']} --policy {found['policy']}" in printed.err
        assert found["best_fixed"] in ACTIONS
        assert {"ratio", "gain_low", "gain_high", "violations", "regret"} <= found["live"].keys()
        page = Path(outcome["report"])
        before = page.read_bytes()
        page.unlink()
        assert main(["controller", "report"]) == 0
        assert page.read_bytes() == before
        capsys.readouterr()

        monkeypatch.setattr(controller, "read_table", lambda measured, split: worse(read_table(measured, split)))
        assert main(["controller", "train", *said, "--floor", "0.04"]) == 2
        [*_, line] = capsys.readouterr().err.splitlines()
        unmet = "floor: 0.04 given, which no action but none meets on 2 of 24 prompts"
        assert line == f"espalier: {unmet}, valid is at least 0.5, which ffn30 meets"
    [count] = query("select count(*) as runs from runs where pattern = 'floor 4%'")
    assert count["runs"] == 0


def worse(table: Table) -> Table:
    """Every action but "none" costs all prompts half of their perplexity."""
    return replace(table, rise_PA=table.rise_PA.new_full(table.rise_PA.shape, 0.5))


def one_learner() -> tuple:
    from flows.controller_choices import parse_learners

    return parse_learners("bandit,passes=2")
