"""The methods as their papers and first implementations write them: the opponents of the benchmark.

Plain and correct torch, nothing slower than it is usually written: unstructured patterns by a full sort, n:m by a
Python loop over the groups of m columns, SparseGPT with the Hessian and the Cholesky chain of one linear and a Python
loop over its columns. `2:4` keeps 2 of every 4 consecutive inputs, as everywhere in this repository.

Axes: O outputs, I inputs, B columns of a block, M columns of a group, T tokens.
"""

import torch
from torch import Tensor

from tasks.prune.weight.pattern import NM, Pattern

DAMP = 0.01  # of the Hessian's mean diagonal
BLOCK = 128  # columns between two updates of the rest of the matrix


def keep(score_OI: Tensor, pattern: Pattern) -> Tensor:
    """The keep that `pattern` selects from a score: True stays."""
    if isinstance(pattern, NM):
        return keep_n_of_m(score_OI, pattern.n, pattern.m)
    if pattern.within == "matrix":
        return keep_highest(score_OI.reshape(1, -1), pattern.sparsity).reshape(score_OI.shape)
    return keep_highest(score_OI, pattern.sparsity)


def keep_highest(score_OI: Tensor, sparsity: float) -> Tensor:
    """Sort every row in full and drop the first int(columns * sparsity)."""
    order_OI = torch.sort(score_OI, dim=1).indices
    dropped_OI = order_OI[:, : int(score_OI.shape[1] * sparsity)]
    return torch.ones_like(score_OI, dtype=torch.bool).scatter_(1, dropped_OI, False)


def keep_n_of_m(score_OI: Tensor, n: int, m: int) -> Tensor:
    """Group after group: drop the m - n lowest of m consecutive columns."""
    keep_OI = torch.ones_like(score_OI, dtype=torch.bool)
    for start in range(0, score_OI.shape[1], m):
        lowest = torch.topk(score_OI[:, start : start + m], m - n, dim=1, largest=False).indices
        keep_OI.scatter_(1, start + lowest, False)
    return keep_OI


def magnitude_score(weight_OI: Tensor) -> Tensor:
    return weight_OI.abs()


def wanda_score(weight_OI: Tensor, norm_I: Tensor) -> Tensor:
    """|W| times the norm of the input (arXiv:2306.11695, equation 1)."""
    return weight_OI.abs() * norm_I


def sparsegpt(weight_OI: Tensor, hessian_II: Tensor, pattern: Pattern) -> Tensor:
    """Prune column by column and let the columns to the right make up for it (arXiv:2301.00774, algorithm 1)."""
    weight_OI = weight_OI.clone()
    weight_OI[:, hessian_II.diagonal() == 0] = 0
    chain_II = inverse_cholesky(hessian_II)
    for start in range(0, weight_OI.shape[1], BLOCK):
        stop = min(start + BLOCK, weight_OI.shape[1])
        block_OB, chain_BB = weight_OI[:, start:stop], chain_II[start:stop, start:stop]
        error_OB = sweep_block(block_OB, chain_BB, pattern)
        weight_OI[:, stop:] -= error_OB @ chain_II[start:stop, stop:]
    return weight_OI


def sweep_block(block_OB: Tensor, chain_BB: Tensor, pattern: Pattern) -> Tensor:
    """Prune a block of columns in place; returns the error of each column, by which later blocks are corrected."""
    grouped = isinstance(pattern, NM)
    if grouped:
        keep_OB = torch.ones_like(block_OB, dtype=torch.bool)
    else:  # one threshold over all rows of the block, whatever `within` says
        score_OB = (block_OB / chain_BB.diagonal()) ** 2
        keep_OB = keep_highest(score_OB.reshape(1, -1), pattern.sparsity).reshape(block_OB.shape)
    error_OB = torch.zeros_like(block_OB)
    for column in range(block_OB.shape[1]):
        if grouped and column % pattern.m == 0:  # chosen on the columns as they are by now
            group = slice(column, column + pattern.m)
            score_OM = (block_OB[:, group] / chain_BB.diagonal()[group]) ** 2
            keep_OB[:, group] = keep_n_of_m(score_OM, pattern.n, pattern.m)
        pruned_O = block_OB[:, column] * keep_OB[:, column]
        error_O = (block_OB[:, column] - pruned_O) / chain_BB[column, column]
        block_OB[:, column:] -= error_O.unsqueeze(1) * chain_BB[column, column:].unsqueeze(0)
        block_OB[:, column] = pruned_O
        error_OB[:, column] = error_O
    return error_OB


def inverse_cholesky(hessian_II: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of the damped Hessian."""
    damped_II = hessian_II.clone()
    diagonal_I = damped_II.diagonal()
    diagonal_I[diagonal_I == 0] = 1
    diagonal_I += DAMP * diagonal_I.mean()
    inverse_II = torch.cholesky_inverse(torch.linalg.cholesky(damped_II))
    return torch.linalg.cholesky(inverse_II, upper=True)
