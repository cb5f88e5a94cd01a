"""What the tests of the registry publish: a packed model, or a folder that is enough to register."""

import dataclasses
from pathlib import Path

from tasks.handles import Checkpoint
from tasks.prune.pack import pack_checkpoint
from tasks.prune.weight.pattern import parse_pattern
from tasks.record import home
from tasks.record.registry import tracking, versions
from tests.record.plausible import CONTEXT, evaluation

NAME = "espalier-stories-aaaaaaaa"


def pack(folder: Path) -> Checkpoint:
    with home.store("packed") as draft:
        pack_checkpoint(folder, draft.path, parse_pattern("2:4"))
    return Checkpoint(hash=draft.stored.hash, folder=draft.stored.folder, kind="packed")


def stub(text: str) -> Checkpoint:
    """A folder that is enough to register, for what needs no model."""
    with home.store("packed") as draft:
        (draft.path / "packing.json").write_text(text)
    return Checkpoint(hash=draft.stored.hash, folder=draft.stored.folder, kind="packed")


def publish(
    run: str, packed: Checkpoint, ppl: float = 20.0, sparsity: float = 0.5, removed: float = 0.0, **context
) -> versions.Version:
    of_run = dataclasses.replace(CONTEXT, run=run, **context)
    row = evaluation(ppl=ppl, sparsity=sparsity, checkpoint=packed.hash)
    with tracking.log_run(of_run, parameters={"samples": 128}, evaluations=[evaluation("dense"), row]) as logged:
        client, run_id = logged
        return versions.publish(client, of_run, packed, row, run_id, removed)
