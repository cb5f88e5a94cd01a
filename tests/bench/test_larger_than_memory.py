"""The benchmark of a model larger than memory: its worker's stages on a tiny model, and what is written of them."""

import json
import os
from dataclasses import replace

import pytest

from bench.larger_than_memory import parse
from bench.larger_than_memory_table import LargeBench, Measured, Resumed, write
from bench.larger_than_memory_worker import DENSE, RECIPES, main, make_checkpoint
from tasks.evaluate import task
from tasks.model.folder import check_folder
from tasks.model.load import load_model
from tasks.peak import PROCESS
from tasks.prune import PRUNERS

BLOCKS, WIDTH = 2, 64
BENCH = LargeBench(
    command="python -m bench.larger_than_memory",
    date="2026-11-22T12:00:00+00:00",
    machine="{}",
    versions="{}",
    threads=1,
    limit_bytes=1_500_000_000,
    model_bytes=3_300_000_000,
    blocks=64,
    width=1024,
    calibration_tokens=512,
    evaluation_tokens=2048,
)
PACKED = Measured(method="wanda", stage="pack", seconds=61.4, peak_bytes=765_400_000, hash="ab", nll=None)


@pytest.fixture
def model(tmp_path):
    size = make_checkpoint(tmp_path / "model", BLOCKS, WIDTH)
    assert make_checkpoint(tmp_path / "model", BLOCKS, WIDTH) == size  # it is there
    return tmp_path / "model", size


def test_the_checkpoint_is_a_model_of_the_size_that_is_told(model):
    folder, size = model
    (folder / "tokenizer.json").write_text("{}")
    check_folder(folder)
    loaded = load_model(folder)
    assert sum(parameter.nbytes for parameter in loaded.parameters()) == size
    assert (len(loaded.model.layers), loaded.config.hidden_size) == (BLOCKS, WIDTH)


@pytest.mark.skipif(not os.access(PROCESS / "clear_refs", os.W_OK), reason="the kernel keeps no peak that can be reset")
def test_a_line_for_each_stage(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setattr(task, "free_bytes", lambda: 0)
    assert {*PRUNERS} < {*RECIPES}
    for method in (DENSE, "magnitude"):
        main(method, str(model[0]), windows=2, evaluation_windows=2)
    main("magnitude", str(model[0]), windows=2, evaluation_windows=2, only="prune")
    rows = [Measured(**json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    stages = [(row.method, row.stage) for row in rows]
    assert stages == [(DENSE, "evaluate"), *(("magnitude", stage) for stage in ("prune", "pack", "evaluate", "prune"))]
    assert all(row.seconds > 0 and row.peak_bytes > 0 for row in rows)
    assert rows[1].hash == rows[4].hash != rows[2].hash
    assert rows[0].nll != rows[3].nll


def test_what_is_finished_is_written_at_once(tmp_path):
    write(BENCH, tmp_path)
    text = write(replace(BENCH, measured=(PACKED,)), tmp_path)
    assert write(BENCH, tmp_path, "other") == (tmp_path / "other.md").read_text() != text
    assert text == (tmp_path / "larger-than-memory.md").read_text()
    assert "3.30 GB" in text
    assert "1.50 GB" in text
    assert text.splitlines()[-1] == "| wanda | pack | 61 | 765 |"
    stored = json.loads((tmp_path / "2026-11-22-larger-than-memory.json").read_text())
    assert Measured(**stored["measured"][0]) == PACKED
    assert stored["resumed"] is None


@pytest.mark.parametrize(("same_bytes", "said"), [(True, "the same bytes"), (False, "OTHER bytes")])
def test_a_resumed_run_and_an_early_end_are_told(same_bytes, said, tmp_path):
    resumed = Resumed(method="wanda", done=33, seconds=80.0, same_bytes=same_bytes)
    text = write(replace(BENCH, measured=(PACKED,), resumed=resumed, ended_early=True), tmp_path)
    assert f"wanda, killed with 33 of 64 blocks in its journal and run again: 80 s for the rest, {said}." in text
    assert "The time was up before all was done." in text


def test_the_size_can_be_chosen():
    choice = parse(["--blocks", "4", "--width", "128", "--limit-bytes", "600000000"])
    assert (choice.blocks, choice.width, choice.limit_bytes) == (4, 128, 600_000_000)
    with pytest.raises(SystemExit):
        parse(["--blocks", "one"])
