"""SparseGPT: prune column by column, and let the columns that follow make up for what was dropped.

Source: Frantar, Alistarh: SparseGPT, arXiv:2301.00774. Its result is computed here with less work.

The paper sweeps with U, the upper Cholesky factor of H⁻¹. Let H = R Rᵀ with R upper triangular; then U = R⁻¹, and a
block on the diagonal of U is the inverse of that block of R. A change D of the weights costs ||D R||², and the columns
up to j alone decide on column j of D R. So once the columns P before a block B are pruned, the best values of B are
those that make its columns of D R zero: W_B − D_P R_PB U_BB. Columns are brought up to date by products with R, only
the blocks of U on the diagonal are needed, and nothing of H's size is ever inverted.

Inside a block the loop over columns is a recursion: sweep the left half, correct the right half in one product, sweep
it. The matrix lies transposed, so that a column of the linear is a row of memory.

Axes: O outputs, I inputs of the linear, B inputs of a block, P inputs before the block.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from tasks.calibrate.observers import InputGram
from tasks.prune.weight.pattern import NM, Pattern, Unstructured
from tasks.prune.weight.pruner import Pruner, check_not_negative


@dataclass(frozen=True, kw_only=True)
class SparseGPT(Pruner):
    """Second-order pruning with H = G + `damp` · mean(diag G), in blocks of `block` inputs.

    A share (`50%`) is compared over all rows of a block, as in the paper, and `within` of the pattern plays no part;
    n:m is chosen when the sweep arrives at the group, on weights that are already updated.
    """

    damp: float = 0.01
    block: int = 128

    observes: ClassVar[type[InputGram]] = InputGram

    def __post_init__(self) -> None:
        check_not_negative("damp", self.damp)
        if self.block < 1:
            raise ValueError(f"block: {self.block} given, valid is 1 or more")

    def _prune(self, weight_OI: Tensor, stat: InputGram, pattern: Pattern) -> Tensor:
        dtype = torch.promote_types(weight_OI.dtype, stat.gram_II.dtype)
        root_II = stat.root_II(self.damp).to(dtype)
        weight_IO = weight_OI.T.to(dtype, copy=True, memory_format=torch.contiguous_format)
        weight_IO.masked_fill_(stat.dead_I[:, None], 0)
        change_IO = torch.empty_like(weight_IO)
        pattern, together, block = _comparison(pattern, self.block)
        for start in range(0, len(weight_IO), block):
            weight_BO, change_BO = weight_IO[start : start + block], change_IO[start : start + block]
            root_PB = root_II[:start, start : start + block]
            root_BB = root_II[start : start + block, start : start + block]
            upper_BB = torch.linalg.solve_triangular(root_BB, torch.eye(len(root_BB)).to(root_BB), upper=True)
            best_BO = weight_BO - upper_BB.T @ (root_PB.T @ change_IO[:start])
            pruned_BO = _sweep(best_BO, upper_BB, pattern, together)
            torch.sub(pruned_BO, weight_BO, out=change_BO)
            weight_BO.copy_(pruned_BO)
        return weight_IO.T.to(weight_OI.dtype).contiguous()


def _comparison(pattern: Pattern, block: int) -> tuple[Pattern, int, int]:
    """The pattern as the sweep applies it, how many inputs it selects together, and the size of a block."""
    if isinstance(pattern, NM):
        return pattern, pattern.m, max(block // pattern.m, 1) * pattern.m
    if isinstance(pattern, Unstructured):
        return replace(pattern, within="matrix"), block, block
    raise ValueError(f"pattern: SparseGPT knows n:m and unstructured patterns, {pattern} given")


def _sweep(weight_BO: Tensor, upper_BB: Tensor, pattern: Pattern, together: int) -> Tensor:
    """Prune the columns of a block one after the other, in place.

    Column j is dropped where the pattern says so; its error e_j = w_j / U_jj moves each later column k by −e_j U_jk.
    """
    scale_B1 = upper_BB.diagonal()[:, None]
    keep_BO = torch.empty_like(weight_BO, dtype=torch.bool)
    error_BO = torch.empty_like(weight_BO)
    weights_O, errors_O = weight_BO.unbind(), error_BO.unbind()

    def sweep(first: int, last: int, selected: bool) -> None:
        columns = last - first
        if not selected and columns <= together:
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

    sweep(0, len(weight_BO), selected=False)
    return weight_BO.masked_fill_(~keep_BO, 0)
