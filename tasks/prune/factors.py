"""A weight as a sparse part and two factors, W ≈ S + A B, and the files that hold such weights beside a checkpoint.

So the stage that prunes hands them to the one that packs:

    model.safetensors …          S + A B, merged: what transformers loads
    lowrank-00001.safetensors …  `<tensor>.left` (O, r) = A, `<tensor>.right` (r, I) = B and, where it has a sparse
                                 part, `<tensor>.sparse` (O, I), zeros included; the metadata holds, as one JSON
                                 object, the pattern of each tensor's S, or null

One file a block keeps memory small; a small model fits into one. Of a weight without factors nothing is written.

Axes: O outputs, I inputs of the linear, r the rank.
"""

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tasks.prune.packing import choose_packing
from tasks.prune.weight.pattern import Pattern, parse_pattern

PARTS = {"sparse": "sparse_OI", "left": "left_Or", "right": "right_rI"}


@dataclass(frozen=True, kw_only=True)
class SparseLowRank:
    """S + A B, which stands for a weight: S (O, I) zero outside `pattern`, A = `left_Or`, B = `right_rI`, one dtype.

    Without a pattern there is no sparse part: S is zero everywhere.
    """

    sparse_OI: Tensor
    left_Or: Tensor
    right_rI: Tensor
    pattern: Pattern | None

    @property
    def rank(self) -> int:
        return len(self.right_rI)

    @property
    def size_bytes(self) -> int:
        """As tasks.prune.pack stores it."""
        factors = (self.left_Or.numel() + self.right_rI.numel()) * self.left_Or.itemsize
        return choose_packing(self.sparse_OI, self.pattern).size_bytes(self.sparse_OI) + factors

    def merged_OI(self) -> Tensor:
        """S + A B as one dense matrix."""
        return merge(self.sparse_OI, self.left_Or, self.right_rI)


def merge(sparse_OI: Tensor | None, left_Or: Tensor, right_rI: Tensor) -> Tensor:
    """S + A B, or A B alone, summed in float64 and rounded once, so that machines hardly ever differ in a bit."""
    low_OI = left_Or.double() @ right_rI.double()
    return (low_OI if sparse_OI is None else low_OI.add_(sparse_OI)).to(left_Or.dtype)


def write_factors(folder: Path, found: Mapping[str, SparseLowRank], number: int = 1) -> None:
    """Write `lowrank-<number>.safetensors`: `found` by the name of the tensor, such as "…q_proj.weight".

    What has rank 0 is left out, and a file that would be empty is not written.
    """
    factored = {name: parts for name, parts in found.items() if parts.rank}
    if not factored:
        return
    tensors = {
        f"{name}.{part}": getattr(parts, field).cpu().contiguous()
        for name, parts in factored.items()
        for part, field in _parts(parts.pattern)
    }
    patterns = {name: parts.pattern and str(parts.pattern) for name, parts in factored.items()}
    metadata = {"patterns": json.dumps(patterns, sort_keys=True)}  # one entry: safetensors orders several at random
    save_file(tensors, folder / f"lowrank-{number:05d}.safetensors", metadata)


class FactorFiles:
    """What the lowrank files of a folder hold, by the name of the tensor; read one tensor at a time."""

    def __init__(self, folder: Path, tensors: Container[str]) -> None:
        """`tensors`: the names in the checkpoint. ValueError for a damaged file, and for factors of another tensor."""
        self._place: dict[str, tuple[Path, Pattern | None]] = {}
        for file in sorted(folder.glob("lowrank-*.safetensors")):
            try:
                with safe_open(file, framework="pt") as stored:
                    patterns = json.loads((stored.metadata() or {}).get("patterns", "{}"))
            except (SafetensorError, ValueError) as error:
                raise ValueError(f"factors: {file} is damaged: {error}") from error
            if unknown := [name for name in patterns if name not in tensors]:
                raise ValueError(f"factors: {file} holds {unknown[0]}, which the checkpoint has not")
            self._place |= {name: (file, text and parse_pattern(text)) for name, text in patterns.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._place

    def read(self, name: str) -> SparseLowRank:
        """ValueError where a part is missing."""
        file, pattern = self._place[name]
        try:
            with safe_open(file, framework="pt") as stored:
                parts = {field: stored.get_tensor(f"{name}.{part}") for part, field in _parts(pattern)}
        except SafetensorError as error:
            raise ValueError(f"factors: {name} cannot be read from {file}: {error}") from error
        if pattern is None:
            parts["sparse_OI"] = parts["left_Or"].new_zeros(len(parts["left_Or"]), parts["right_rI"].shape[1])
        return SparseLowRank(**parts, pattern=pattern)


def _parts(pattern: Pattern | None) -> list[tuple[str, str]]:
    """What is stored of a weight: the name of each part in the file, and of its field."""
    return [(part, field) for part, field in PARTS.items() if part != "sparse" or pattern is not None]
