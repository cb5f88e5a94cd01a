"""Hidden states that wait between two blocks: up to a limit on the GPU that made them, then in memory, then in files.

Axes: B windows of a batch, T tokens of a window, D model width.
"""

import tempfile
import weakref
from collections.abc import Iterator
from copy import copy
from itertools import count
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tasks.calibrate.memory import free_bytes

FOLDER = "espalier-hidden-"  # how the name of the temporary folder begins
SHARE = 0.25  # of the free memory, and of the GPU's, for all that waits


class Spill:
    """Where hidden states wait: `limit_bytes` of them in memory, the rest in files of a temporary folder.

    The limit is a quarter of the memory that is free when it is made, if none is given. `folder` is where the temporary
    one is made, None for where the system wants it; it must not lie in memory itself. It is removed with this object.
    What a GPU has made stays there, up to `device_limit_bytes`, so that it need not come to the host and go back for
    every block. If none is given, that is a quarter of what is free on the GPU when the first of them come.
    """

    def __init__(
        self, limit_bytes: int | None = None, folder: Path | None = None, device_limit_bytes: int | None = None
    ) -> None:
        self.limit_bytes = int(SHARE * free_bytes()) if limit_bytes is None else limit_bytes
        self.device_limit_bytes = device_limit_bytes
        self.device_bytes = self.held_bytes = self.spilled_bytes = 0  # now
        self._parent = folder
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._numbers = count()

    def put(self, hidden_BTD: Tensor) -> "Waiting":
        """Where there is room for it."""
        if hidden_BTD.device.type != "cpu":
            if self.device_limit_bytes is None:
                self.device_limit_bytes = int(SHARE * _free_on(hidden_BTD.device))
            if self.device_bytes + hidden_BTD.nbytes <= self.device_limit_bytes:
                return _OnDevice(self, hidden_BTD)
            hidden_BTD = hidden_BTD.cpu()
        if self.held_bytes + hidden_BTD.nbytes <= self.limit_bytes:
            return _InMemory(self, hidden_BTD)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(dir=self._parent, prefix=FOLDER)
        return _InFile(self, Path(self._folder.name, f"{next(self._numbers)}.safetensors"), hidden_BTD)


class HiddenStates:
    """The hidden states of each batch, in the order of the batches; each may be replaced."""

    def __init__(self, spill: Spill) -> None:
        self._spill = spill
        self._waiting: list[Waiting] = []

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self._waiting)

    def append(self, hidden_BTD: Tensor) -> None:
        self._waiting.append(self._spill.put(hidden_BTD))

    def twin(self) -> Self:
        """The same hidden states, not copied, of which each may be replaced here and not there."""
        twin = copy(self)
        twin._waiting = list(self._waiting)
        return twin

    def __len__(self) -> int:
        return len(self._waiting)

    def __getitem__(self, batch: int) -> Tensor:
        return self._waiting[batch].get()

    def __setitem__(self, batch: int, hidden_BTD: Tensor) -> None:
        del self._waiting[batch]  # first: its room may be what the new one needs
        self._waiting.insert(batch, self._spill.put(hidden_BTD))

    def __iter__(self) -> Iterator[Tensor]:
        return (self[batch] for batch in range(len(self)))


class _OnDevice:
    def __init__(self, spill: Spill, hidden_BTD: Tensor) -> None:
        self._hidden_BTD, self.nbytes = hidden_BTD, hidden_BTD.nbytes
        spill.device_bytes += hidden_BTD.nbytes
        weakref.finalize(self, _leave_device, spill, hidden_BTD.nbytes)

    def get(self) -> Tensor:
        return self._hidden_BTD


class _InMemory:
    def __init__(self, spill: Spill, hidden_BTD: Tensor) -> None:
        self._hidden_BTD, self.nbytes = hidden_BTD, hidden_BTD.nbytes
        spill.held_bytes += hidden_BTD.nbytes
        weakref.finalize(self, _leave_memory, spill, hidden_BTD.nbytes)

    def get(self) -> Tensor:
        return self._hidden_BTD


class _InFile:
    def __init__(self, spill: Spill, file: Path, hidden_BTD: Tensor) -> None:
        self._file, self.nbytes = file, hidden_BTD.nbytes
        save_file({"hidden": hidden_BTD.contiguous()}, file)
        spill.spilled_bytes += hidden_BTD.nbytes
        weakref.finalize(self, _leave_disk, spill, hidden_BTD.nbytes, file)

    def get(self) -> Tensor:
        return load_file(self._file)["hidden"]


Waiting = _OnDevice | _InMemory | _InFile


def _free_on(device: torch.device) -> int:
    """Bytes; 0 where the device is no GPU of CUDA: hidden states do not stay there then."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def _leave_device(spill: Spill, size_bytes: int) -> None:
    spill.device_bytes -= size_bytes


def _leave_memory(spill: Spill, size_bytes: int) -> None:
    spill.held_bytes -= size_bytes


def _leave_disk(spill: Spill, size_bytes: int, file: Path) -> None:
    spill.spilled_bytes -= size_bytes
    file.unlink(missing_ok=True)  # its folder may be gone already, at the end of the program
