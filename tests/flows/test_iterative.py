"""The whole run of `iterative` on a tiny model, with a real server, real files and a real registry."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from flows.iterative import iterative
from flows.iterative_choices import Iterative, parse_allocator
from flows.methods import parse_importance
from flows.outcome import Outcome
from tasks.model.load import load_model
from tasks.recover import task as recover_task
from tasks.recover.schedule import trapezoid
from tasks.stage import StageFailed
from tests.flows.runs import rows_of, sharing, stages_of
from tests.flows.tiny import BLOCK, CHANNEL, HEAD_GROUP

WINDOW, BATCH, STEPS, STAGES = 32, 4, 9, 3
CHANNELS = 8 * CHANNEL  # a step of them
WHOLE = 2 * BLOCK + 2 * 32 * 32 + 32  # blocks, embedding and head, the last norm
TARGET = 14_000
RATE = 3e-3


@pytest.fixture(scope="module")
def words(tiny_model: Path, stories: Path) -> dict:
    texts = {"calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]", "recover_text": (str(stories),)}
    shared = {"model": str(tiny_model), "samples": 8, "window": WINDOW, "round_to": 8, "speed": False}
    training = {"recover_tokens": STEPS * BATCH * WINDOW, "recover_batch": BATCH, "recover_rate": RATE}
    how = {"importance": parse_importance("wanda_sp"), "allocator": parse_allocator("adapt")}
    return {"target_parameters": TARGET, "stages": STAGES, **texts, **shared, **training, **how}


@pytest.fixture(scope="module")
def runs(server: str, words: dict, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """Several runs in one artifacts folder, so that what they share is computed once."""
    changes: dict[str, dict] = {
        "first": {},
        "again": {},
        "plain": {"repair": False, "allocator": parse_allocator("uniform"), "calibration_window": 16, "stages": 1},
    }
    with sharing(server, tmp_path_factory.mktemp("stages") / "artifacts"):
        yield {name: iterative(Iterative.parse(**words | changed)) for name, changed in changes.items()}


def test_every_stage_leaves_its_target_within_one_unit_and_the_model_has_what_the_rows_say(runs: dict[str, Outcome]):
    rows = rows_of("cut_stages", runs["first"])
    assert [row["stage"] for row in rows] == [1, 2, 3]
    assert rows[0]["parameters_before"] == WHOLE
    for k, row in enumerate(rows, start=1):
        assert 0 <= row["target"] - (WHOLE - Fraction(WHOLE - TARGET) * k / STAGES) < 1
        assert 0 <= row["parameters"] - row["target"] < max(HEAD_GROUP, CHANNELS)
    assert [row["parameters_before"] for row in rows[1:]] == [row["parameters"] for row in rows[:-1]]
    checkpoint = runs["first"].checkpoint  # with the modeling file that the run has written for blocks that differ
    model = AutoModelForCausalLM.from_pretrained(checkpoint, trust_remote_code=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == rows[-1]["parameters"]
    assert runs["first"].result.parameters == rows[-1]["parameters"]


def test_the_blocks_are_told_from_the_dense_model_to_the_last_cut(runs: dict[str, Outcome]):
    rows = rows_of("slices", runs["first"])
    gone = sum(row["parameters_before"] - row["parameters"] for row in rows)
    assert gone == WHOLE - runs["first"].result.parameters
    assert {(row["head_groups_before"], row["channels_before"]) for row in rows} == {(2, 64)}
    assert {row["cut_error"] for row in rows} == {None}


def test_one_training_goes_through_the_stages_and_no_window_twice(runs: dict[str, Outcome]):
    rows = rows_of("cut_stages", runs["first"])
    assert [row["steps"] for row in rows] == [2, 3, 4]  # 9 k (k + 1) / 12, rounded half up: 2 (1.5), 5 (4.5), 9
    assert sum(row["tokens"] for row in rows) == STEPS * BATCH * WINDOW
    rates = [RATE * trapezoid((step + 0.5) / STEPS, 0.05, 0.1) for step in (0, 1, 2, 4, 5, 8)]
    assert [rate for row in rows for rate in (row["rate_from"], row["rate_to"])] == pytest.approx(rates)
    [trained] = rows_of("recoveries", runs["first"])
    assert (trained["windows"], trained["distinct"]) == (STEPS * BATCH, STEPS * BATCH)
    assert trained["steps"] == STEPS
    assert (trained["first_loss"], trained["last_loss"]) == (rows[0]["first_loss"], rows[-1]["last_loss"])


def test_moments_are_handed_from_the_training_to_the_cut_and_on(runs: dict[str, Outcome]):
    store = Path(runs["first"].checkpoint).parents[1] / "moments"
    kept = [load_file(folder / "moments.safetensors") for folder in store.iterdir()]
    name = "model.layers.0.mlp.down_proj.weight"
    seen = sorted((moments[f"{name}/step"].item(), moments[f"{name}/exp_avg"].shape[1]) for moments in kept)
    steps = [step for step, _ in seen]
    assert steps == [2, 2, 5, 5]  # after the first two stages, whole and cut
    assert seen[-1][1] <= seen[0][1]


def test_a_second_run_computes_nothing_and_has_rows_of_its_own(runs: dict[str, Outcome]):
    found = stages_of(runs["again"])
    assert len(found) == 3 + 3 * 5 + 2 + 2  # texts; score, describe, allocate, slice, recover; moments; evaluations
    assert set(found.values()) == {True}
    assert runs["again"].checkpoint == runs["first"].checkpoint
    assert len(rows_of("cut_stages", runs["again"])) == STAGES


def test_a_single_stage_is_cut_once_and_a_plain_cut_has_the_loss_that_its_allocator_measured(runs: dict[str, Outcome]):
    [row] = rows_of("cut_stages", runs["plain"])
    assert (row["steps"], row["share"]) == (STEPS, 1.0)
    assert 0 <= row["parameters"] - TARGET < max(HEAD_GROUP, CHANNELS)
    assert row["calibration_loss"] > 0
    assert not any(stage.startswith(("cut moments", "describe")) for stage in stages_of(runs["plain"]))
    [calibration] = [row for row in rows_of("datasets", runs["plain"]) if row["role"] == "calibration"]
    assert (calibration["window"], calibration["windows"]) == (16, 8)


def test_a_run_leaves_a_version_and_a_page(runs: dict[str, Outcome]):
    [run] = rows_of("runs", runs["first"])
    assert run["flow"] == "iterative"
    assert run["pattern"] == "to 0.014M"
    assert run["method"] == f"wanda_sp+adapt+repair+stages=3+recover,tokens={STEPS * BATCH * WINDOW}"
    assert run["registered_version"].endswith("/1")
    page = Path(runs["first"].report).read_text()
    assert "Stages of cutting and training" in page
    assert "tokens trained" in page


def test_prefect_shows_a_table_of_the_stages_after_each_of_them(runs: dict[str, Outcome]):
    rows = rows_of("cut_stages", runs["first"])
    of_run = FlowRunFilter(name=FlowRunFilterName(any_=[runs["first"].run]))
    with get_client(sync_client=True) as client:
        shown = {each.key: each for each in client.read_artifacts(flow_run_filter=of_run)}
    for stage in range(1, STAGES + 1):
        table = json.loads(shown[f"stage-{stage}"].data)
        for field in ("parameters", "calibration_loss", "last_loss", "tokens", "seconds"):
            assert [row[field] for row in table] == [row[field] for row in rows[:stage]]
    assert {"results", "stages", "report", "figure-0"} <= {*shown}


def test_an_interrupted_stage_goes_on_from_its_last_state(
    artifacts: Path, words: dict, runs: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch
):
    reached: list[int] = []

    @contextmanager
    def stopping(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
        def reach(step: int) -> None:
            reached.append(step)
            if (total, step) == (4, 3):
                raise RuntimeError("stopped")

        yield reach

    monkeypatch.setattr(recover_task, "CHECKPOINT_EVERY", 1)
    with monkeypatch.context() as patch:
        patch.setattr(recover_task, "progress", stopping)
        with pytest.raises(StageFailed, match="stage recover, stage 3: stopped"):
            iterative(Iterative.parse(**words))
    assert reached == [1, 2, 1, 2, 3, 1, 2, 3]
    outcome = iterative(Iterative.parse(**words))
    assert Path(outcome.checkpoint).name == Path(runs["first"].checkpoint).name
    assert outcome.result == runs["first"].result
    assert next(name for name, cached in stages_of(outcome).items() if not cached) == "recover, stage 3"


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path: Path, tiny_model: Path, words: dict):
    """SIGKILL again and again, each time a little later, until a run reaches its end."""
    command = [sys.executable, "-m", "flows.cli", *shlex.split(Iterative.parse(**words).command())[1:]]

    def start(artifacts: Path) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        environment["ESPALIER_ARTIFACTS"] = str(artifacts)
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def left_by(artifacts: Path) -> set[str]:
        return {path.name for kind in ("checkpoints", "moments") for path in (artifacts / "store" / kind).iterdir()}

    started = time.monotonic()
    assert start(tmp_path / "undisturbed").wait(timeout=600) == 0
    lasted = time.monotonic() - started
    for share in (0.3, 0.4, 0.5, 0.6, 0.7):
        process = start(tmp_path / "killed")
        time.sleep(share * lasted)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(tmp_path / "killed").wait(timeout=600) == 0
    assert left_by(tmp_path / "killed") == left_by(tmp_path / "undisturbed")


def test_the_stages_cut_what_was_cut_before(runs: dict[str, Outcome]):
    """The checkpoint of the last stage loads as a model whose blocks have widths of their own."""
    model = load_model(Path(runs["first"].checkpoint), run_code=True)
    assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()
