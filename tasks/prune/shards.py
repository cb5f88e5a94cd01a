"""Safetensors files of a bounded size, filled one after the other, so that only one of them is ever in memory."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

SHARD_BYTES = 256 << 20


class Shards:
    """`<stem>-00001.safetensors`, `<stem>-00002.safetensors` and so on in `folder`, of up to `limit_bytes` of tensors.

    What is larger than that gets a file of its own. Each file bears `metadata`.
    """

    def __init__(
        self, folder: Path, stem: str, limit_bytes: int = SHARD_BYTES, metadata: dict[str, str] | None = None
    ) -> None:
        self._folder, self._stem, self._limit_bytes, self._metadata = folder, stem, limit_bytes, metadata
        self._held, self._held_bytes, self._number = dict[str, Tensor](), 0, 1

    def add(self, tensors: Mapping[str, Tensor]) -> str:
        """Put these into one file; returns its name. It is written when the next tensors no longer fit into it."""
        size = sum(tensor.nbytes for tensor in tensors.values())
        if self._held and self._held_bytes + size > self._limit_bytes:
            self.finish()
            self._number += 1
        self._held |= tensors
        self._held_bytes += size
        return self._file_name

    def finish(self) -> None:
        """Write what is held."""
        save_file(self._held, self._folder / self._file_name, self._metadata)
        self._held, self._held_bytes = {}, 0

    @property
    def _file_name(self) -> str:
        return f"{self._stem}-{self._number:05d}.safetensors"
