"""Stopped after any block, or killed at any moment, a pruning goes on from its journal and ends with the same bytes."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tasks.calibrate.spill import Spill
from tasks.handles import Checkpoint, Tokens
from tasks.model.load import fingerprint
from tasks.model.mapped import mapped_model
from tasks.model.shards import save_parts
from tasks.prune import PRUNERS
from tasks.prune import task as door
from tasks.prune.journal import MARK, Journal
from tasks.prune.weight.apply import prune_blocks
from tasks.prune.weight.lowrank import LowRank
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import NM, Unstructured
from tasks.prune.weight.recipe import Recipe
from tasks.prune.weight.reconstruct import Reconstruct
from tasks.prune.weight.refit import Refit
from tasks.prune.weight.wanda import Wanda
from tasks.record import home
from tests.cases import BLOCKS, WINDOW, batches, gemma3, llama, opt

HALF = Unstructured()
TWO_OF_FOUR = NM(n=2, m=4)
IDS = batches((2, WINDOW), (2, WINDOW), (1, WINDOW))
WIDE = {"hidden_size": 64, "intermediate_size": 128}  # wide enough for factors to pay
RECIPES = {name: Recipe(pruner=pruner(), pattern=HALF) for name, pruner in PRUNERS.items()} | {
    "drift, group by group": Recipe(pruner=Wanda(), pattern=TWO_OF_FOUR, update=Refit(drift=0.5), order="group"),
    "reconstructed": Recipe(pruner=Wanda(), pattern=HALF, reconstruct=Reconstruct(epochs=1)),
    "permuted": Recipe(pruner=Wanda(), pattern=TWO_OF_FOUR, permute=True),
    "low rank": Recipe(pruner=Wanda(), pattern=HALF, low_rank=LowRank(share=0.25, rounds=2)),
}


@pytest.fixture
def source(tmp_path):
    llama(**WIDE).save_pretrained(tmp_path / "source")
    return tmp_path / "source"


def run(source, folder, recipe, stop_after=None, every=0.0):
    """Open everything anew, prune, and write the checkpoint unless stopped; the rows, without what they took."""
    folder.mkdir(exist_ok=True)
    journal = Journal(folder, every)
    with mapped_model(source) as model:
        steps = prune_blocks(model, recipe, IDS, journal=journal, spill=Spill(4096, folder))
        found = list(islice(steps, stop_after))
        steps.close()
        if stop_after is None:
            target = folder / "checkpoint"
            target.mkdir()
            save_parts(model, journal.weights, source, target, one_file_bytes=0)
    return [(timeless(row), [timeless(linear.row) for linear in linears]) for row, linears in found]


def timeless(row):
    return {name: value for name, value in dataclasses.asdict(row).items() if not name.endswith("seconds")}


def hold_the_same(file, other):
    """Tensors and metadata; the order in which safetensors writes the latter is not fixed."""
    with safe_open(file, framework="pt") as one, safe_open(other, framework="pt") as two:
        names = sorted(one.keys())
        alike = all(torch.equal(one.get_tensor(name), two.get_tensor(name)) for name in names)
        return one.metadata() == two.metadata() and names == sorted(two.keys()) and alike


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", RECIPES)
def test_stopped_after_each_block_it_ends_with_the_same_bytes(name, source, tmp_path):
    undisturbed = run(source, tmp_path / "undisturbed", RECIPES[name])
    for stop_after in range(1, BLOCKS + 1):
        started = run(source, tmp_path / "stopped", RECIPES[name], stop_after)
        assert started == undisturbed[:stop_after]
        assert len(Journal(tmp_path / "stopped").finished) == stop_after
    assert run(source, tmp_path / "stopped", RECIPES[name]) == undisturbed
    checkpoints = [contents(tmp_path / each / "checkpoint") for each in ("undisturbed", "stopped")]
    assert checkpoints[0] == checkpoints[1]
    beside = [Journal(tmp_path / each).beside for each in ("undisturbed", "stopped")]
    assert bool(beside[0]) == (name in ("permuted", "low rank"))
    for file, other in zip(*beside, strict=True):
        assert file.name == other.name
        assert hold_the_same(file, other)


@pytest.mark.parametrize("make", [llama, opt, gemma3])
def test_pruned_from_disk_to_disk_it_is_the_model_pruned_in_memory(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path / "source")
    recipe = Recipe(pruner=Wanda(), pattern=HALF)
    in_memory = [
        (timeless(row), [timeless(linear.row) for linear in linears])
        for row, linears in prune_blocks(model, recipe, IDS)
    ]
    assert run(tmp_path / "source", tmp_path / "journal", recipe) == in_memory
    with mapped_model(tmp_path / "journal" / "checkpoint") as stored:
        for name, value in model.state_dict().items():
            assert torch.equal(stored.state_dict()[name], value), name


def test_a_finished_block_is_a_view_of_its_file(source, tmp_path):
    journal = Journal(tmp_path / "source")  # its own files are the only ones it removes
    with mapped_model(source) as model:
        for row, _ in prune_blocks(model, RECIPES["wanda"], IDS, journal=journal):
            for done, block in enumerate(model.model.layers):
                file = journal.weights[done] if done <= row.block else source / "model.safetensors"
                assert all(parameter.is_view and parameter.file == file for parameter in block.parameters())


def test_without_a_mark_nothing_counts(source, tmp_path):
    """A short run sets none: it would cost more than it saves."""
    run(source, tmp_path / "stopped", RECIPES["wanda"], stop_after=2, every=1e9)
    assert not (tmp_path / "stopped" / MARK).exists()
    assert len(list((tmp_path / "stopped").glob("block-*"))) == 2
    assert not Journal(tmp_path / "stopped").finished
    assert not list((tmp_path / "stopped").glob("block-*"))


def test_what_a_mark_does_not_speak_of_is_removed(source, tmp_path):
    run(source, tmp_path, RECIPES["wanda"], stop_after=2)
    known = {"block-00000", "block-00001", "waiting-00002", MARK, "source"}
    assert known <= {path.name for path in tmp_path.iterdir()}
    (tmp_path / "block-00002.part").mkdir()
    (tmp_path / "waiting-00001").mkdir()
    (tmp_path / "espalier-hidden-left").mkdir()
    assert len(Journal(tmp_path).finished) == 2
    assert {path.name for path in tmp_path.iterdir()} == known


KILLED = """
import sys
from functools import partial
from tasks.prune import task as door
from tests.prune.test_journal import stage_inputs, Journal
door.Journal = partial(Journal, every=0)
door.prune.fn(**stage_inputs(*sys.argv[1:]))
"""


def stage_inputs(source, tokens):
    return {
        "model": Checkpoint(hash=fingerprint(Path(source)), folder=source),
        "calibration": Tokens(
            hash=Path(tokens).name,
            folder=str(Path(tokens).relative_to(home.root())),
            source="random",
            dataset_hash="",
            documents=1,
            text_bytes=1,
            tokens=64 * 24,
            windows=64,
            window=24,
        ),
        "recipe": Recipe(pruner=Wanda(), pattern=HALF),
        "allocation": None,
        "device": "cpu",
    }


def test_the_killed_stage_resumes_at_its_block_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    source = tmp_path / "source"
    llama(num_hidden_layers=12, hidden_size=256, intermediate_size=1024).save_pretrained(source)
    stored = {}
    for name in ("undisturbed", "killed"):
        monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / name))
        with home.store("tokens") as draft:
            save_file({"ids": batches((64, 24))[0]}, draft.path / "tokens.safetensors")
        inputs = stage_inputs(str(source), str(home.locate(draft.stored.folder)))
        if name == "killed":
            words = [sys.executable, "-c", KILLED, str(source), str(home.locate(draft.stored.folder))]
            one_thread = {"OMP_NUM_THREADS": "1"}  # as this process has: another number adds in another order
            paths = {"PYTHONPATH": f"{Path.cwd()}:{Path.cwd()}/tests"}
            process = subprocess.Popen(words, env=os.environ | paths | one_thread)
            marks = tmp_path / name / "store" / ".unfinished"
            while not any(len(json.loads(mark.read_text())) > 2 for mark in marks.glob(f"*/{MARK}")):
                assert process.poll() is None, "it has ended before it was killed"
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
            begun_with = []
            monkeypatch.setattr(door, "progress", partial(watched, begun_with))
        stored[name] = door.prune.fn(**inputs)
    assert begun_with[0] > 2
    assert stored["killed"].checkpoint == stored["undisturbed"].checkpoint
    for rows in ("blocks", "linears"):
        assert [timeless(row) for row in getattr(stored["killed"], rows)] == [
            timeless(row) for row in getattr(stored["undisturbed"], rows)
        ]
    assert not list(marks.iterdir())


def watched(begun_with, what, total, done=0):
    from tasks.progress import progress

    begun_with.append(done)
    return progress(what, total, done)


def test_a_journal_of_other_inputs_is_another(source, tmp_path, monkeypatch):
    keys = []
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "artifacts"))
    with home.store("tokens") as draft:
        save_file({"ids": batches((4, 24))[0]}, draft.path / "tokens.safetensors")
    inputs = stage_inputs(str(source), str(home.locate(draft.stored.folder)))
    own = door.workplace
    monkeypatch.setattr(door, "workplace", lambda key: keys.append(key) or own(key))
    for recipe in (inputs["recipe"], Recipe(pruner=Magnitude(), pattern=HALF), inputs["recipe"]):
        door.prune.fn(**inputs | {"recipe": recipe})
    assert keys[0] == keys[2] != keys[1]
