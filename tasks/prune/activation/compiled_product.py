"""The product for a CPU with a C++ compiler: kept rows alone are read, each as one stretch, by compiled_product.cpp.

It reads memory as fast as a dense product does, so it is faster by nearly what it leaves out. An output is summed by
one thread in the order of the inputs, in float32: its bits depend neither on the number of threads nor on the tokens
beside it. OpenMP's threads are those of torch, whose libgomp is loaded already when the library asks for one.

Axes: T tokens, I inputs, O outputs.
"""

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from tasks.prune.activation.shared_library import NotCompiled, shared_library

SOURCE = Path(__file__).with_suffix(".cpp")
SYMBOLS = {torch.float32: "add_kept_rows_float32", torch.bfloat16: "add_kept_rows_bfloat16"}


@cache
def library() -> ctypes.CDLL:
    """compiled_product.cpp, compiled where it was not yet on this machine. Raises NotCompiled."""
    try:
        loaded = ctypes.CDLL(str(shared_library(SOURCE)))
    except OSError as error:
        raise NotCompiled(f"the compiled library cannot be loaded ({error})") from error
    for symbol in SYMBOLS.values():
        function = loaded[symbol]
        function.argtypes = [*[ctypes.c_void_p] * 3, ctypes.c_float, *[ctypes.c_int64] * 4]
        function.restype = None
        setattr(loaded, symbol, function)
    return loaded


def compiled_product(x_TI: Tensor, weight_IO: Tensor, threshold: Tensor | None = None) -> Tensor:
    """(x · 1[|x| > t]) @ weight_IO, (T, O) in the dtype of x, with as many threads as torch has. No gradient.

    `threshold`: a scalar t in the dtype of x; None for 0, of an x that is 0 wherever an input was dropped. ValueError
    for other devices, dtypes and shapes, and for a weight whose rows do not lie one after the other in memory.
    """
    _check(x_TI, weight_IO)
    (tokens, inputs), outputs = x_TI.shape, weight_IO.shape[1]
    read_TI = x_TI.float().contiguous()
    sum_TO = torch.zeros(tokens, outputs, dtype=torch.float32, device="cpu")
    getattr(library(), SYMBOLS[weight_IO.dtype])(
        read_TI.data_ptr(),
        weight_IO.data_ptr(),
        sum_TO.data_ptr(),
        0.0 if threshold is None else threshold.item(),
        tokens,
        inputs,
        outputs,
        torch.get_num_threads(),
    )
    return sum_TO.to(x_TI.dtype)


def _check(x_TI: Tensor, weight_IO: Tensor) -> None:
    if x_TI.device.type != "cpu" or weight_IO.device.type != "cpu":
        raise ValueError(f"device: {x_TI.device.type} and {weight_IO.device.type} given, valid is cpu for both")
    if weight_IO.dtype not in SYMBOLS or x_TI.dtype != weight_IO.dtype:
        valid = " or ".join(str(each).removeprefix("torch.") for each in SYMBOLS)
        raise ValueError(f"dtype: {x_TI.dtype} and {weight_IO.dtype} given, valid is {valid} for both")
    if x_TI.dim() != 2 or weight_IO.dim() != 2 or x_TI.shape[1] != len(weight_IO):
        raise ValueError(f"shape: {(*x_TI.shape,)} and {(*weight_IO.shape,)} given, valid is (T, I) and (I, O)")
    if not weight_IO.is_contiguous():
        raise ValueError("weight: its rows do not lie one after the other, valid is a contiguous (inputs, outputs)")
