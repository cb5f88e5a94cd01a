"""The whole run of `profiles` on a tiny model, with a real server, real files and a real registry."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.cli import build_parser, main
from flows.methods import parse_importance
from flows.profile_choices import Profiles
from flows.profile_words import profiles_of
from flows.profiles import ProfilesOutcome, make_profiles
from flows.terminal import profiles_json
from tasks.evaluate.perplexity import perplexity
from tasks.model.load import fingerprint, load_model
from tasks.prune.structure.profile_folder import load_profiles
from tasks.prune.structure.profiles import NONE
from tasks.record.registry.tracking import tracking
from tests.flows.runs import rows_of, sharing, stages_of
from tests.flows.tiny import BLOCK, CHANNEL, HEAD_GROUP

PAGE = (Path(__file__).parents[2] / "docs" / "cut.md").read_text(encoding="utf-8")
NAMES = ["heads30", "ffn30", "depth50"]
CACHED = {"tokenize calibration", "tokenize evaluation", "score by wanda_sp", "score by influence", "build profiles"}
CACHED |= {"evaluate dense", "evaluate profiles", "time switches", "forecast profiles", "time profiles"}


@pytest.fixture(scope="module")
def words(tiny_model: Path, stories: Path) -> dict:
    texts = {"calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]"}
    shared = {"model": str(tiny_model), "samples": 8, "window": 32, "round_to": 8}
    return {"profiles": ",".join(NAMES), "importance": parse_importance("wanda_sp"), **texts, **shared}


@pytest.fixture(scope="module")
def runs(server: str, words: dict, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ProfilesOutcome]]:
    """Several runs in one artifacts folder, so that what they share is computed once."""
    changes: dict[str, dict] = {
        "first": {},
        "again": {},
        "plain": {"repair": False, "speed": False},
        "usual": {"profiles": None, "speed": False},
    }
    with sharing(server, tmp_path_factory.mktemp("profiles") / "artifacts"):
        yield {name: make_profiles(Profiles.parse(**words | changed)) for name, changed in changes.items()}


def test_a_run_leaves_profiles_that_switch_in_place_and_score_what_the_rows_say(
    runs: dict[str, ProfilesOutcome], tiny_model: Path
):
    outcome = runs["first"]
    model = load_model(tiny_model)
    profiles = load_profiles(model, fingerprint(tiny_model), Path(outcome.profiles))
    assert profiles.names == [NONE, *NAMES]
    ids = torch.randint(0, 20, (200,), generator=torch.Generator().manual_seed(0))
    dense = perplexity(model, ids, window=32).nll
    whole = sum(parameter.numel() for parameter in model.parameters())
    gone = {"heads30": HEAD_GROUP, "ffn30": 2 * 16 * CHANNEL, "depth50": BLOCK}  # 1 of 4 groups; of 64 channels 19.2
    for row in outcome.results:
        with profiles.using(row.subject):
            assert row.parameters == sum(parameter.numel() for parameter in model.parameters())
            assert row.parameters == whole - gone[row.subject]
            assert row.memory_bytes == profiles.own_bytes(row.subject) + profiles.shared_bytes(row.subject)
    assert perplexity(model, ids, window=32).nll == dense
    assert outcome.dense.parameters == whole


def test_a_run_leaves_rows_metrics_and_a_page(runs: dict[str, ProfilesOutcome]):
    outcome = runs["first"]
    rows = {row["profile"]: row for row in rows_of("profiles", outcome)}
    assert list(rows) == [NONE, *NAMES]
    assert [rows[name]["head_groups"] for name in rows] == [4, 3, 4, 2]
    assert [rows[name]["channels"] for name in rows] == [128, 128, 96, 64]
    assert [rows[name]["blocks"] for name in rows] == [2, 2, 2, 1]
    assert [rows[name]["own_bytes"] for name in rows] == [0, 4 * HEAD_GROUP, 4 * 2 * 48 * CHANNEL, 0]
    for row in rows.values():
        assert 0 < row["switch_median_ms"] <= row["switch_worst_ms"]
        assert row["switches"] > 100
    evaluated = {row["subject"]: (row["method"], row["pattern"]) for row in rows_of("evaluations", outcome)}
    assert evaluated == {
        "dense": ("wanda_sp+repair", "profiles"),
        "heads30": ("heads wanda_sp+repair", "heads30"),
        "ffn30": ("ffn wanda_sp+repair", "ffn30"),
        "depth50": ("depth influence", "depth50"),
    }
    assert {(row["subject"], row["phase"]) for row in rows_of("speeds", outcome)} == {
        (subject, phase) for subject in ("dense", *NAMES) for phase in ("prefill", "decode")
    }
    speeds = {(row["subject"], row["phase"]): row["ratio"] for row in rows_of("speeds", outcome)}
    forecasts = {(row["subject"], row["phase"]): row for row in rows_of("forecasts", outcome)}
    assert forecasts.keys() == {key for key in speeds if key[0] != "dense"}
    for key, row in forecasts.items():
        assert (row["pattern"], row["measured_ratio"]) == (key[0], speeds[key])
        assert row["error"] == pytest.approx(row["forecast_ratio"] / speeds[key] - 1)
        told = profiles_json(outcome)["results"][key[0]]["forecasts"][key[1]]
        assert told.items() <= row.items()
    with tracking() as client:
        experiment = client.get_experiment_by_name("espalier").experiment_id
        [logged] = client.search_runs([experiment], f"tags.run = '{outcome.run}'")
    for row in (outcome.dense, *outcome.results):
        assert logged.data.metrics[f"{row.subject}_ppl"] == pytest.approx(row.ppl)
    assert "ffn30_decode_speed_ratio" in logged.data.metrics
    assert logged.info.status == "FINISHED"
    page = Path(outcome.report).read_text()
    assert all(f"{row.ppl:.2f}" in page for row in outcome.results)
    assert "Perplexity against what it bought" in page
    assert "Speed forecast" in page
    assert stages_of(outcome) == dict.fromkeys(CACHED, False)


def test_a_second_run_computes_nothing(runs: dict[str, ProfilesOutcome]):
    assert stages_of(runs["again"]) == dict.fromkeys(CACHED, True)
    assert runs["again"].profiles == runs["first"].profiles
    assert len(rows_of("profiles", runs["again"])) == 1 + len(NAMES)


def test_without_repair_the_same_units_go_and_nothing_is_scored_again(runs: dict[str, ProfilesOutcome]):
    plain, first = runs["plain"], runs["first"]
    assert plain.profiles != first.profiles
    assert stages_of(plain)["score by wanda_sp"] is True
    assert [row.parameters for row in plain.results] == [row.parameters for row in first.results]
    assert {row.subject: row.nll for row in plain.results}["depth50"] == first.results[-1].nll
    assert rows_of("speeds", plain) == rows_of("forecasts", plain) == []


def test_without_names_the_profiles_are_the_usual_ones_that_the_model_can_take(runs: dict[str, ProfilesOutcome]):
    names = [row.subject for row in runs["usual"].results]
    assert names == ["heads20", "ffn10", "ffn20"]  # of 4 groups 0.4 would be none, 0.8 and 1.2 one; 64 channels go by 8


def test_the_pages_program_switches_in_place(
    runs: dict[str, ProfilesOutcome],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "load_profiles" in block)
    (tmp_path / "my-llama").symlink_to(tiny_model)
    (tmp_path / "profiles").symlink_to(runs["usual"].profiles)
    monkeypatch.chdir(tmp_path)
    program: dict[str, Any] = {}
    exec(code, program)
    assert capsys.readouterr().out == f"{4 * HEAD_GROUP} bytes beside the model\n"
    assert program["profiles"].active == NONE


def test_json_has_what_programs_read(artifacts: Path, tiny_model: Path, stories: Path, capsys: pytest.CaptureFixture):
    words = {"model": tiny_model, "calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]"}
    words |= {"samples": 8, "window": 32, "profiles": "depth50"}
    given = [str(word) for name, value in words.items() for word in (f"--{name}", value)]
    assert main(["profiles", *given, "--no-speed", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert Path(outcome["profiles"]).is_dir()
    assert Path(outcome["report"]).is_file()
    assert list(outcome["results"]) == ["depth50"]
    depth = outcome["results"]["depth50"]
    assert depth["own_bytes"] == 0
    assert depth["switch_median_ms"] > 0
    assert outcome["dense"]["parameters"] - depth["parameters"] == BLOCK
    assert depth.keys() - {"own_bytes", "shared_bytes", "switches", "switch_median_ms", "switch_worst_ms"} == (
        outcome["dense"].keys()
    )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"profiles": "neck10"}, ("profiles: neck10 given", "heads, ffn, depth", "heads20")),
        ({"profiles": "heads"}, ("profiles: 'heads' given", "heads20")),
        ({"profiles": ""}, ("profiles: '' given", "heads20")),
        ({"profiles": "ffn30,ffn30"}, ("profiles: ffn30 given 2 times",)),
        ({"profiles": "heads30,heads20"}, ("profiles: heads30 and heads20", "the same cut of this model")),
        ({"profiles": "heads10"}, ("profiles: heads10 given", "of the 4 head groups", "heads25 to heads50")),
        ({"profiles": "depth10"}, ("profiles: depth10", "of the 2 blocks", "depth50")),
        ({"profiles": "ffn1", "round-to": "8"}, ("profiles: ffn1 given; channels: 0.01", "valid is 0.125 to 0.875")),
        ({"profiles": "depth50", "importance": "taylor"}, ("importance", "influence", "leave it out")),
        ({"profiles": "heads30", "round-to": "8"}, ("round_to", "channels", "leave it out")),
        ({"importance": "influence"}, ("importance: influence", "channels, head_groups", "weight_norm, activation")),
        ({"importance": "leave_one_out,kinds=channels"}, ("importance", "head_groups")),
        ({"importance": "tailor"}, ("importance", "tailor", "weight_norm, activation")),
        ({"samples": "1"}, ("samples", "hold out")),
        ({"model": "no-such-model"}, ("model", "no-such-model")),
        ({"calibration": "dogs"}, ("dogs", "docs")),
    ],
)
def test_a_mistake_is_one_line_that_names_the_field(
    artifacts: Path, tiny_model: Path, stories: Path, capsys: pytest.CaptureFixture, changed: dict, says: tuple
):
    words = {"model": str(tiny_model), "importance": "wanda_sp", "samples": "4", "window": "32"}
    words |= {"calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]"} | changed
    assert main(["profiles", *(word for name, value in words.items() for word in (f"--{name}", value))]) == 2
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if not line.startswith("espalier: watch this run")]
    assert (printed.out, len(lines)) == ("", 1), printed.err
    assert all(part in lines[0] for part in says), lines[0]
    assert not (artifacts / "store" / "scores").exists()


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"profiles": "heads20,ffn12.5,depth25", "importance": parse_importance("flap"), "round_to": 32},
        {"profiles": "depth25", "speed": False, "window": 128, "seed": 3},
        {"repair": False, "sampling": "first", "samples": 7},
    ],
)
def test_the_command_of_a_run_repeats_it(words: dict):
    parameters = Profiles.parse(**words)
    again = build_parser().parse_args(shlex.split(parameters.command())[1:])
    assert profiles_of(again) == parameters
    assert Profiles.model_validate_json(parameters.model_dump_json()) == parameters
