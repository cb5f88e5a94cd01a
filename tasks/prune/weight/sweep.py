"""The sweep of SparseGPT: column by column, the columns that follow make up for what is dropped.

Source: Frantar, Alistarh: SparseGPT, arXiv:2301.00774. Its result is computed here with less work.

The paper sweeps with U, the upper Cholesky factor of H⁻¹. Let H = R Rᵀ with R upper triangular; then U = R⁻¹, and a
block on the diagonal of U is the inverse of that block of R. A change D of the weights costs ||D R||², and the columns
up to j alone decide on column j of D R. So once the columns P before a block B are pruned, the best values of B are
those that make its columns of D R zero: W_B − D_P R_PB U_BB. Columns are brought up to date by products with R, only
the blocks of U on the diagonal are needed, and nothing of H's size is ever inverted.

Inside a block the loop over columns is a recursion: sweep the left half, correct the right half in one product, sweep
it. The matrix lies transposed, so that a column of the linear is a row of memory.

On a GPU the work of a block is recorded once for all matrices with as many outputs and the same pattern, and replayed
for each block; the last one, where it is narrower, runs as it is. Within a matrix nothing waits for the GPU.

Axes: O outputs, I inputs of the linear, B inputs of a block, P inputs before the block.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from threading import get_ident

import torch
from torch import Tensor

from tasks.calibrate.observers import InputGram
from tasks.prune.weight.pattern import NM, Pattern, Unstructured
from tasks.prune.weight.pruner import check_not_negative
from tasks.prune.weight.replay import DEVICES, Replay
from tasks.prune.weight.update import Update, Updated

RECORDINGS = 8  # that are kept, with their memory: about ten times B × O numbers each


@dataclass(frozen=True, kw_only=True)
class Sweep(Update):
    """SparseGPT's: column by column, the later ones make up for what was dropped."""

    damp: float = 0.01
    block: int = 128

    def __post_init__(self) -> None:
        check_sweep(self.damp, self.block)

    @property
    def observes(self) -> type[InputGram]:
        return InputGram

    def update(self, weight_OI: Tensor, keep_OI: Tensor, stat: InputGram) -> Updated:
        """Raises ValueError where `damp` does not make the Gram positive definite."""
        swept_OI, _ = sweep(weight_OI, stat, keep_OI, self.damp, self.block)
        return Updated(weight_OI=swept_OI, damp=self.damp)


def check_sweep(damp: float, block: int) -> None:
    """ValueError for what no sweep can be made with."""
    check_not_negative("damp", damp)
    if block < 1:
        raise ValueError(f"block: {block} given, valid is 1 or more")


def sweep(
    weight_OI: Tensor, stat: InputGram, choice: Pattern | Tensor, damp: float, block: int
) -> tuple[Tensor, Tensor]:
    """The swept matrix, in the dtype of `weight_OI`, and its keep.

    `choice`: a pattern, which selects on the way, from weights that are already updated; or a keep, bool (O, I).
    """
    dtype = torch.promote_types(weight_OI.dtype, stat.gram_II.dtype)
    root_II = stat.root_II(damp).to(dtype)
    weight_IO = weight_OI.T.to(dtype, copy=True, memory_format=torch.contiguous_format)
    weight_IO.masked_fill_(stat.dead_I[:, None], 0)
    change_IO = torch.empty_like(weight_IO)
    if isinstance(choice, Tensor):
        pattern, together, keep_IO = None, block, choice.T.contiguous()
    else:
        pattern, together, block = comparison(choice, block)
        keep_IO = torch.empty_like(weight_IO, dtype=torch.bool)
    whole = narrower = _block_sweep(pattern, together)
    if weight_IO.device.type in DEVICES:
        whole = _recorded(pattern, together, (block, weight_IO.shape[1]), dtype, weight_IO.device, get_ident())
    for start in range(0, len(weight_IO), block):
        columns = slice(start, start + block)
        weight_BO, keep_BO, change_BO = weight_IO[columns], keep_IO[columns], change_IO[columns]
        due_BO = root_II[:start, columns].T @ change_IO[:start]
        sweep_block = whole if len(weight_BO) == block else narrower
        pruned_BO, kept_BO = sweep_block(weight_BO, root_II[columns, columns], due_BO, keep_BO)
        torch.sub(pruned_BO, weight_BO, out=change_BO)
        weight_BO.copy_(pruned_BO)
        keep_BO.copy_(kept_BO)
    return weight_IO.T.to(weight_OI.dtype).contiguous(), keep_IO.T


def comparison(pattern: Pattern, block: int) -> tuple[Pattern, int, int]:
    """The pattern as the sweep applies it, how many inputs it selects together, and the size of a block.

    Raises ValueError for patterns other than n:m and percentages.
    """
    if isinstance(pattern, NM):
        return pattern, pattern.m, max(block // pattern.m, 1) * pattern.m
    if isinstance(pattern, Unstructured):
        return replace(pattern, within="matrix"), block, block
    raise ValueError(f"pattern: SparseGPT knows n:m and unstructured patterns, {pattern} given")


def _block_sweep(pattern: Pattern | None, together: int) -> Callable[..., tuple[Tensor, ...]]:
    return partial(_sweep_block, pattern=pattern, together=together)


@lru_cache(maxsize=RECORDINGS)
def _recorded(pattern: Pattern | None, together: int, *_of: Hashable) -> Replay:
    """The recording for blocks of one shape, dtype and device; each thread has its own."""
    return Replay(_block_sweep(pattern, together))


def _sweep_block(
    weight_BO: Tensor, root_BB: Tensor, due_BO: Tensor, keep_BO: Tensor, pattern: Pattern | None, together: int
) -> tuple[Tensor, Tensor]:
    """The pruned block, and its keep, which is filled in where there is a pattern.

    `due_BO` is R_PBᵀ D_P: what the change of the columns before asks of these.
    """
    identity_BB = torch.eye(len(root_BB), dtype=root_BB.dtype, device=root_BB.device)
    upper_BB = torch.linalg.solve_triangular(root_BB, identity_BB, upper=True)
    best_BO = weight_BO - upper_BB.T @ due_BO
    return _sweep(best_BO, upper_BB, keep_BO, pattern, together), keep_BO


def _sweep(weight_BO: Tensor, upper_BB: Tensor, keep_BO: Tensor, pattern: Pattern | None, together: int) -> Tensor:
    """Prune the columns of a block one after the other, in place; `keep_BO` is filled in where there is a pattern.

    Column j is dropped where it is not kept; its error e_j = w_j / U_jj moves each later column k by −e_j U_jk.
    """
    scale_B1 = upper_BB.diagonal()[:, None]
    error_BO = torch.empty_like(weight_BO)
    weights_O, errors_O = weight_BO.unbind(), error_BO.unbind()
    if pattern is None:
        torch.div(~keep_BO, scale_B1, out=error_BO)

    def sweep(first: int, last: int, selected: bool) -> None:
        columns = last - first
        if not selected and columns <= together:
            assert pattern is not None
            score_BO = weight_BO[first:last].abs() / scale_B1[first:last]  # the root of the paper's w² / U_jj²
            keep_BO[first:last] = pattern.select(score_BO.T).T
            torch.div(~keep_BO[first:last], scale_B1[first:last], out=error_BO[first:last])
            selected = True
        if columns == 1:
            errors_O[first].mul_(weights_O[first])
            return
        middle = first + (columns // 2 if selected else columns // together // 2 * together)
        sweep(first, middle, selected)
        weight_BO[middle:last].addmm_(upper_BB[first:middle, middle:last].T, error_BO[first:middle], alpha=-1)
        sweep(middle, last, selected)

    sweep(0, len(weight_BO), selected=pattern is None)
    sweep = None  # type: ignore[assignment]  # it holds itself: these tensors would wait for a garbage collection
    return weight_BO.masked_fill_(~keep_BO, 0)
