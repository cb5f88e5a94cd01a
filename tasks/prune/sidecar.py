"""What lies beside a model and is put upon it when it is loaded: an index in JSON, and tensors in safetensors.

The index names its format, its version, and the hash of the model that it goes with.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tasks.model.trust import read_object


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """The files `<name>.json` and `<name>.safetensors` of a folder; errors begin with the name too."""

    name: str
    format: str
    version: int = 1

    @property
    def index(self) -> str:
        return f"{self.name}.json"

    @property
    def tensors(self) -> str:
        return f"{self.name}.safetensors"

    def write_index(self, folder: Path, model_hash: str, entries: Mapping[str, Any]) -> None:
        """Write the index; `model_hash`: of the model that the folder goes with (tasks.model.folder.fingerprint)."""
        index = {"format": self.format, "version": self.version, "model_hash": model_hash} | dict(entries)
        (folder / self.index).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def read(self, folder: Path, model_hash: str | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The index and the tensors, on the CPU; of any model where `model_hash` is None.

        Raises ValueError for a folder without them, of another format, version or model, and for damaged tensors.
        """
        index = self._read_index(folder / self.index)
        if model_hash is not None and index.get("model_hash") != model_hash:
            given = index.get("model_hash")
            raise ValueError(f"{self.name}: {folder} is of model {given}, valid is one of {model_hash}")
        try:
            return index, load_file(folder / self.tensors)
        except (SafetensorError, FileNotFoundError) as error:
            raise ValueError(f"{self.name}: {folder / self.tensors} cannot be read: {error}") from error

    def _read_index(self, file: Path) -> dict[str, Any]:
        index = read_object(file, self.name)
        if (index.get("format"), index.get("version")) != (self.format, self.version):
            given = f"{index.get('format')} of version {index.get('version')}"
            raise ValueError(f"{self.name}: {file} is {given}, valid is {self.format} of version {self.version}")
        return index
