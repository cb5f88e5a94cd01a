"""What a pruning leaves as it goes: pruned blocks leave memory, and one that was stopped goes on from its last mark.

    block-00002/weights.safetensors    a pruned block; beside it orders-00003 and lowrank-00003, where it has them
    waiting-00003/0.safetensors …      the hidden states before block 3, a file a batch: `pruned`, and perhaps `dense`
    mark.json                          the rows of blocks 0 to 2; what it speaks of was durable before it was

A folder is whole when its name appears. Hidden states can be many times the size of a block, so they are not written
after each: a mark is due when the work since the last one has taken `EVERY` times as long as writing it will. So no
more than that is ever lost, and a short run writes none.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file, save_file

from tasks.calibrate.memory import give_back
from tasks.calibrate.spill import FOLDER
from tasks.calibrate.walk import Walk
from tasks.handles import BlockRow, LinearRow
from tasks.model.anatomy import Anatomy
from tasks.model.mapped import remap
from tasks.prune.factors import write_factors
from tasks.prune.orders import write_orders
from tasks.prune.weight.linear import PrunedLinear

EVERY = 10
BYTES_PER_S = 200e6  # that the disk takes, until the first mark has shown it
MARK, WEIGHTS = "mark.json", "weights.safetensors"
OURS = ("block-*", "waiting-*", f"{FOLDER}*")  # the folders that whoever was stopped may have left here


class Journal:
    """The journal in `folder`, an existing one that belongs to one model, recipe and set of batches, and one process.

    `finished`: the rows of the blocks that are pruned. What no mark speaks of is removed when a journal is opened.
    """

    def __init__(self, folder: Path, every: float = EVERY) -> None:
        self.folder, self.every = folder, every
        self.finished = _read_mark(folder)
        self._unsynced: list[Path] = []
        self._bytes_per_s, self._marked_at = BYTES_PER_S, time.monotonic()
        for stray in {path for pattern in OURS for path in folder.glob(pattern)} - {self._waiting, *self._blocks}:
            shutil.rmtree(stray)

    @property
    def weights(self) -> list[Path]:
        """A safetensors file for each pruned block, with the names that its tensors have in the model."""
        return [folder / WEIGHTS for folder in self._blocks]

    @property
    def beside(self) -> list[Path]:
        """The files of orders and factors, which belong beside a checkpoint."""
        return [file for folder in self._blocks for file in sorted(folder.iterdir()) if file.name != WEIGHTS]

    def resume(
        self, anatomy: Anatomy, walk: Walk | None, dense: Walk | None
    ) -> list[tuple[BlockRow, list[PrunedLinear]]]:
        """Put the pruned blocks into a model of tasks.model.mapped, and what waits before the next into the walks.

        Returns what is known of each block; its orders and factors stay in the journal.
        """
        for index, file in enumerate(self.weights):
            remap(anatomy.blocks[index], f"{anatomy.name}.{index}.", file)
        if walk is not None and self._waiting.is_dir():
            for batch in range(len(walk.hidden)):
                stored = load_file(self._waiting / f"{batch}.safetensors")
                walk.hidden[batch] = stored["pruned"]
                if dense is not None:
                    dense.hidden[batch] = stored["dense"]

        def known(row: LinearRow) -> PrunedLinear:
            return PrunedLinear(row=row, tensor=f"{anatomy.qualified(row.block, row.linear)}.weight")

        return [(row, [known(each) for each in linears]) for row, linears in self.finished]

    def add(
        self, anatomy: Anatomy, row: BlockRow, linears: list[PrunedLinear], walk: Walk | None, dense: Walk | None
    ) -> None:
        """Write the block of `row`, which is pruned, and let go of its memory; both walks are behind it."""
        index, prefix = row.block, f"{anatomy.name}.{row.block}."
        self.finished.append((row, [linear.row for linear in linears]))
        with _filled(self._blocks[index]) as folder:
            state = {prefix + name: tensor.contiguous() for name, tensor in anatomy.blocks[index].state_dict().items()}
            save_file(state, folder / WEIGHTS, {"format": "pt"})
            orders = {linear.tensor: linear.order_I for linear in linears if linear.order_I is not None}
            factors = {linear.tensor: linear.factors for linear in linears if linear.factors is not None}
            write_orders(folder, orders, index + 1)
            write_factors(folder, factors, index + 1)
        del state
        remap(anatomy.blocks[index], prefix, self._blocks[index] / WEIGHTS)
        give_back()
        self._unsynced.append(self._blocks[index])
        walks = [each for each in (walk, dense) if each is not None] if index + 1 < len(anatomy.blocks) else []
        size = sum(path.stat().st_size for folder in self._unsynced for path in folder.iterdir())
        size += sum(each.hidden.nbytes for each in walks)
        if (time.monotonic() - self._marked_at) * self._bytes_per_s >= self.every * size:
            self._mark(size, dict(zip(("pruned", "dense"), walks, strict=False)))

    def _mark(self, size: int, walks: dict[str, Walk]) -> None:
        started = time.monotonic()
        if walks:
            with _filled(self._waiting) as folder:
                for batch in range(len(walks["pruned"].hidden)):
                    hidden = {name: walk.hidden[batch].contiguous() for name, walk in walks.items()}
                    save_file(hidden, folder / f"{batch}.safetensors")
            self._unsynced.append(self._waiting)
        for folder in self._unsynced:
            for path in (*folder.iterdir(), folder):
                _sync(path)
        _sync(self.folder)
        aside = self.folder / f"{MARK}.part"
        rows = [{"block": asdict(row), "linears": [asdict(each) for each in linears]} for row, linears in self.finished]
        aside.write_text(json.dumps(rows), encoding="utf-8")
        _sync(aside)
        os.replace(aside, self.folder / MARK)
        _sync(self.folder)
        self._unsynced.clear()
        for folder in self.folder.glob("waiting-*"):
            if folder != self._waiting:
                shutil.rmtree(folder)
        self._marked_at = time.monotonic()
        self._bytes_per_s = size / max(self._marked_at - started, 1e-3)

    @property
    def _blocks(self) -> list[Path]:
        return [self.folder / f"block-{index:05d}" for index in range(len(self.finished))]

    @property
    def _waiting(self) -> Path:
        """What waits before the next block."""
        return self.folder / f"waiting-{len(self.finished):05d}"


def _read_mark(folder: Path) -> list[tuple[BlockRow, list[LinearRow]]]:
    """Nothing, where there is no mark."""
    if not (folder / MARK).is_file():
        return []
    rows = json.loads((folder / MARK).read_text(encoding="utf-8"))
    return [(BlockRow(**row["block"]), [LinearRow(**each) for each in row["linears"]]) for row in rows]


@contextmanager
def _filled(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill, which then gets the name of `folder`."""
    aside = folder.with_suffix(".part")
    aside.mkdir()
    yield aside
    aside.rename(folder)


def _sync(path: Path) -> None:
    """Make a file's bytes, or a folder's names, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
