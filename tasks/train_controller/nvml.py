"""What the NVIDIA driver tells of its GPUs, through the library that comes with it (NVML); CUDA is left as it is.

The five functions that are called, their structures and their errors are those of
https://docs.nvidia.com/deploy/nvml-api; they have been the same since NVML 5.
"""

import ctypes
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOG = logging.getLogger(__name__)
LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
NOT_SUPPORTED = 3  # as of a part of a GPU, whose use the driver does not tell


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


@dataclass(frozen=True, kw_only=True)
class GPUState:
    """`used`: share of the last sample period, a second at most, in which a kernel ran; 0 where nobody tells."""

    used: float
    free_bytes: int
    total_bytes: int


class GPU:
    """One GPU. It is found once; after that a look is two calls of the driver."""

    def __init__(self, library: Any, handle: ctypes.c_void_p) -> None:
        self._library, self._handle = library, handle

    @classmethod
    def find(cls, device: str, environment: Mapping[str, str] = os.environ, library: str = LIBRARY) -> "GPU | None":
        """That of `device`: of `cuda:1` the second that CUDA may see, of another device the first.

        Numbers are the driver's, as CUDA counts with CUDA_DEVICE_ORDER=PCI_BUS_ID, or where all GPUs are alike. None
        without a driver and without this GPU, which is logged where `device` is a GPU: all that is seen of it is 0.
        """
        number = int(device.partition(":")[2] or 0)
        shown = environment.get("CUDA_VISIBLE_DEVICES")
        names = [str(number)] if shown is None else [name.strip() for name in shown.split(",")][number : number + 1]
        why = f"CUDA_VISIBLE_DEVICES is {shown!r}"
        if names and names[0]:
            try:
                return cls._of(ctypes.CDLL(library), names[0])
            except OSError as error:
                why = str(error)
        if device.startswith("cuda"):
            LOG.warning("the state of %s cannot be read, and counts as 0: %s", device, why)
        return None

    @classmethod
    def _of(cls, library: Any, name: str) -> "GPU":
        """By its number or its UUID. Raises OSError."""
        handle = ctypes.c_void_p()
        _check(library.nvmlInit_v2())
        if name.isdecimal():
            _check(library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(name)), ctypes.byref(handle)))
        else:
            _check(library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle)))
        return cls(library, handle)

    def state(self) -> GPUState:
        """As it is now. Raises OSError where the driver fails."""
        memory, use = _Memory(), _Utilization()
        _check(self._library.nvmlDeviceGetMemoryInfo(self._handle, ctypes.byref(memory)))
        told = self._library.nvmlDeviceGetUtilizationRates(self._handle, ctypes.byref(use))
        if told != NOT_SUPPORTED:
            _check(told)
        return GPUState(used=use.gpu / 100, free_bytes=memory.free, total_bytes=memory.total)


def _check(code: int) -> None:
    if code:
        raise OSError(f"NVML says {code}")
