"""The product for a GPU: of one token, the sum of those rows of the transposed weight whose inputs exceed a threshold.

The threshold is applied where the input is read, so nothing is chosen, counted or gathered beforehand: a program looks
at a few inputs and loads, of those that it keeps, a stretch of outputs that lie side by side in memory. The inputs are
split among programs, for one token has too few outputs to keep a GPU busy; their sums are added in a fixed order by a
second kernel, so that the same token always gives the same bits. All sums are float32.

Triton comes with the torch of a GPU and is not needed to import this. With TRITON_INTERPRET=1 in the environment before
it is imported, the kernels run on a CPU, slowly: to test them.

Axes: T tokens, I inputs, O outputs, S splits of the inputs.
"""

from __future__ import annotations  # of the kernels, whose annotations Triton reads as text

import os
from functools import cache
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    from triton import language as tl
except ImportError:  # `check_device` says so where it is needed
    triton = tl = None

TILE_I, TILE_O = 32, 128  # of a program at a time; 128 bfloat16 outputs are 256 bytes of a row
PROGRAMS = 1024  # that a token is split into, about: several for each multiprocessor of a large GPU


def check_device(device: torch.device) -> None:
    """Raises ValueError where the kernels cannot run: anywhere but on CUDA, or without Triton."""
    if triton is None:
        raise ValueError("device: rows are read by a Triton kernel, and triton is not installed; install it")
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"device: {device.type} given, no CUDA; this product runs on CUDA alone")


def row_product(x_TI: Tensor, weight_IO: Tensor, threshold: Tensor | None = None) -> Tensor:
    """(x · 1[|x| > t]) @ weight, (T, O) in the dtype of x; each token alone reads its rows, so it is for few.

    `threshold`: a scalar t in the dtype of x; None for 0, of an x that is 0 wherever an input was dropped. No gradient.
    ValueError as `check_device`, and for a weight whose rows do not lie one after the other in memory.
    """
    check_device(x_TI.device)
    if not weight_IO.is_contiguous():
        raise ValueError("weight: its rows do not lie one after the other, valid is a contiguous (inputs, outputs)")
    (tokens, inputs), outputs = x_TI.shape, weight_IO.shape[1]
    splits, of_split = _split(inputs, outputs)
    partial_STO = torch.empty(splits, tokens, outputs, dtype=torch.float32, device=x_TI.device)
    product_TO = torch.empty(tokens, outputs, dtype=x_TI.dtype, device=x_TI.device)
    sum_rows, add_splits = _compiled()
    tiles = -(-outputs // TILE_O)
    x_TI = x_TI.contiguous()
    sum_rows[tiles, splits, tokens](
        x_TI, weight_IO, threshold, partial_STO, inputs, outputs, of_split, TILE_I=TILE_I, TILE_O=TILE_O
    )
    add_splits[-(-tokens * outputs // TILE_O),](partial_STO, product_TO, splits, tokens * outputs, TILE=TILE_O)
    return product_TO


def _split(inputs: int, outputs: int) -> tuple[int, int]:
    """Into how many parts the inputs are split, and how many whole tiles of them each has, in inputs."""
    tiles_I, tiles_O = -(-inputs // TILE_I), -(-outputs // TILE_O)
    of_split = -(-tiles_I // max(1, min(tiles_I, PROGRAMS // tiles_O)))
    return -(-tiles_I // of_split), of_split * TILE_I


@cache
def _compiled() -> tuple[Any, Any]:
    return triton.jit(_sum_rows), triton.jit(_add_splits)


def _sum_rows(  # type: ignore[no-untyped-def]
    x_TI, weight_IO, threshold, partial_STO, inputs, outputs, of_split, TILE_I: tl.constexpr, TILE_O: tl.constexpr
):
    """A program: a tile of outputs, a split of the inputs, a token."""
    output_O = tl.program_id(0) * TILE_O + tl.arange(0, TILE_O)
    split, token = tl.program_id(1), tl.program_id(2)
    there_O = output_O < outputs
    least = 0.0 if threshold is None else tl.load(threshold).to(tl.float32)
    sum_IO = tl.zeros((TILE_I, TILE_O), tl.float32)
    for start in range(split * of_split, min((split + 1) * of_split, inputs), TILE_I):
        input_I = start + tl.arange(0, TILE_I)
        x_I = tl.load(x_TI + token * inputs + input_I, mask=input_I < inputs, other=0.0).to(tl.float32)
        keep_I = (tl.abs(x_I) <= least) == 0  # nan is kept, to be seen
        rows_IO = weight_IO + input_I.to(tl.int64)[:, None] * outputs + output_O[None, :]
        read_IO = tl.load(rows_IO, mask=keep_I[:, None] & there_O[None, :], other=0.0).to(tl.float32)
        sum_IO += read_IO * tl.where(keep_I, x_I, 0.0)[:, None]
    place = (split * tl.num_programs(2) + token) * outputs
    tl.store(partial_STO + place + output_O, tl.sum(sum_IO, axis=0), mask=there_O)


def _add_splits(partial_SN, product_N, splits, size, TILE: tl.constexpr):  # type: ignore[no-untyped-def]
    """A program: a tile of the N outputs of all tokens."""
    place_N = tl.program_id(0) * TILE + tl.arange(0, TILE)
    there_N = place_N < size
    sum_N = tl.zeros((TILE,), tl.float32)
    for split in range(splits):
        sum_N += tl.load(partial_SN + split * size + place_N, mask=there_N, other=0.0)
    tl.store(product_N + place_N, sum_N.to(product_N.dtype.element_ty), mask=there_N)
