"""Low rank, alone or beside zeros: W as the product of two thin factors, or as a sparse matrix plus such a product.

A change D of the weights matters by what it does to the outputs, ||D X||² = ||D R||² with R Rᵀ = G, the Gram of the
inputs. Of all matrices of rank r the nearest to W in this norm is the truncated SVD of W R, with R undone. It comes
without R⁻¹: with U the first r left singular vectors of W R, that matrix is U Uᵀ W, for U Uᵀ (W R) R⁻¹ = U Uᵀ W. With
R = I it is the plain truncated SVD (Eckart, Young: The approximation of one matrix by another of lower rank, 1936).

For W ≈ S + L one of the two is found while the other is held: S by pruning W − L; L, as above, of W − S. Nothing is
taken of what is pruned already: S and L answer to the dense W in every round.

Axes: O outputs, I inputs of the linear, r the rank.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tasks.calibrate.observers import InputGram
from tasks.prune.factors import SparseLowRank, merge
from tasks.prune.weight.decomposer import Decomposer
from tasks.prune.weight.pattern import Pattern
from tasks.prune.weight.pruner import Pruner, check_not_negative
from tasks.prune.weight.share import check_rank, share_out


@dataclass(frozen=True, kw_only=True)
class Decomposed(SparseLowRank):
    """What came of a weight. Errors are relative, ||(S + A B − W) X||² / ||W X||², of the matrix rounded to its dtype.

    Rank 0: the pattern alone does better than with factors in the same bytes, and S is that.
    """

    error: float
    alone_error: float  # of the pattern without factors


@dataclass(frozen=True, kw_only=True)
class LowRank(Decomposer):
    """Sparse + low rank in the bytes that the pattern alone would take, `share` of them for the factors.

    `damp` · mean(diag G) is added to the diagonal of G, as SparseGPT does. `rounds`: how often S and L are found anew;
    of all rounds the one with the least output error is taken. It still falls after 20, slowly.
    """

    share: float = 0.25
    damp: float = 0.01
    rounds: int = 20

    observes: ClassVar[type[InputGram]] = InputGram

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share: {self.share} given, valid is between 0 and 1")
        check_not_negative("damp", self.damp)
        if self.rounds < 1:
            raise ValueError(f"rounds: {self.rounds} given, valid is 1 or more")

    def check(self, pattern: Pattern, outputs: int, inputs: int) -> None:
        """ValueError where the bytes of a matrix of this shape cannot be shared out, in weights of 16 bits or wider."""
        share_out(pattern, self.share, outputs, inputs)

    def decompose(self, weight_OI: Tensor, stat: InputGram, pruner: Pruner, pattern: Pattern) -> Decomposed:
        """In no more bytes than `pruner` with `pattern` alone, and never worse on the tokens of `stat`.

        The pattern of S and the rank: `tasks.prune.weight.share.share_out`. Raises ValueError for what the pruner
        refuses, where the bytes cannot be shared out, and for a `stat` that has no Gram.
        """
        if not isinstance(stat, InputGram):
            raise ValueError(f"stat: {type(stat).__name__} given, {type(self).__name__} needs {InputGram.__name__}")
        alone_OI = pruner.prune(weight_OI, stat, pattern)
        outputs, inputs = weight_OI.shape
        split = share_out(pattern, self.share, outputs, inputs, weight_OI.itemsize)
        best_error = alone_error = _relative_error(alone_OI, weight_OI, stat)
        best, best_pattern = (alone_OI, alone_OI[:, :0], alone_OI[:0]), pattern
        for parts in self._rounds(weight_OI, stat, pruner, split.pattern, split.rank):
            error = _relative_error(merge(*parts), weight_OI, stat)
            if error < best_error:
                best, best_pattern, best_error = parts, split.pattern, error
        sparse_OI, left_Or, right_rI = best
        return Decomposed(
            sparse_OI=sparse_OI,
            left_Or=left_Or,
            right_rI=right_rI,
            pattern=best_pattern,
            error=best_error,
            alone_error=alone_error,
        )

    def _rounds(
        self, weight_OI: Tensor, stat: InputGram, pruner: Pruner, pattern: Pattern, rank: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """S, A and B, found anew from those before."""
        root_II = stat.root_II(self.damp)
        left_Or, right_rI = factorise(weight_OI, rank, root_II)
        for _ in range(self.rounds):
            sparse_OI = pruner.prune(weight_OI - merge(None, left_Or, right_rI), stat, pattern)
            left_Or, right_rI = factorise(weight_OI - sparse_OI, rank, root_II)
            yield sparse_OI, left_Or, right_rI


def factorise(weight_OI: Tensor, rank: int, root_II: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A (O, r) and B (r, I), of all products of this rank the nearest to `weight_OI`, in its dtype.

    Near means small ||(A B − W) R|| with R = `root_II` (`InputGram.root_II`), small ||A B − W|| without it. Both sides
    carry the singular values: column k of A and row k of B have equal norms, so that neither overflows 16 bits.

    Raises ValueError for a rank that saves nothing: r >= O · I / (O + I).
    """
    check_rank(rank, *weight_OI.shape)
    exact_OI = weight_OI.double()
    basis_Or = _first_left_vectors(exact_OI if root_II is None else exact_OI @ root_II.double(), rank)
    right_rI = basis_Or.T @ exact_OI
    norm_r = right_rI.norm(dim=1)
    scale_r = torch.where(norm_r > 0, norm_r.sqrt(), 1)
    return (basis_Or * scale_r).to(weight_OI.dtype), (right_rI / scale_r[:, None]).to(weight_OI.dtype)


def _first_left_vectors(matrix_OI: Tensor, rank: int) -> Tensor:
    """Of its singular value decomposition, by the eigenvectors of the smaller of M Mᵀ and Mᵀ M, which come sooner."""
    outputs, inputs = matrix_OI.shape
    if outputs <= inputs:
        return torch.linalg.eigh(matrix_OI @ matrix_OI.T).eigenvectors[:, outputs - rank :]
    right_Ir = torch.linalg.eigh(matrix_OI.T @ matrix_OI).eigenvectors[:, inputs - rank :]
    return torch.linalg.qr(matrix_OI @ right_Ir).Q


def _relative_error(merged_OI: Tensor, weight_OI: Tensor, stat: InputGram) -> float:
    energy = stat.output_energy(weight_OI).item()
    return stat.output_energy(merged_OI - weight_OI).item() / energy if energy > 0 else 0.0
