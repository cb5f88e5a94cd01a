"""Low rank alone: a weight as the product of two thin factors, by a truncated singular value decomposition.

A change D of the weights matters by what it does to the outputs, ||D X||² = ||D R||² with R Rᵀ = G, the Gram of the
inputs. Of all matrices of rank r the nearest to W in this norm is the truncated SVD of W R, with R undone. It comes
without R⁻¹: with U the first r left singular vectors of W R, that matrix is U Uᵀ W, for U Uᵀ (W R) R⁻¹ = U Uᵀ W. With
R = I it is the plain truncated SVD.

Axes: O outputs, I inputs of the linear, r the rank.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tasks.calibrate.observers import InputGram, Observer
from tasks.prune.factors import SparseLowRank
from tasks.prune.weight.decomposer import Decomposer
from tasks.prune.weight.pattern import Pattern
from tasks.prune.weight.pruner import Pruner, check_not_negative
from tasks.prune.weight.share import budget_rank, check_rank


@dataclass(frozen=True, kw_only=True)
class SVD(Decomposer):
    """Of all products of its rank the nearest to the weight itself: no input is looked at.

    `rank`: of each linear; None: the largest in the bytes that the pattern would leave of it.
    Source: Eckart, Young: The approximation of one matrix by another of lower rank, Psychometrika 1936.
    """

    rank: int | None = None

    observes: ClassVar[type[Observer] | None] = None
    alone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"rank: {self.rank} given, valid is 1 or more")

    @property
    def budgeted(self) -> bool:
        return self.rank is None

    def check(self, pattern: Pattern, outputs: int, inputs: int) -> None:
        check_rank(self._rank(pattern, outputs, inputs, 2), outputs, inputs)

    def _decompose(self, weight_OI: Tensor, stat: Any, pruner: Pruner | None, pattern: Pattern) -> SparseLowRank:
        outputs, inputs = weight_OI.shape
        rank = self._rank(pattern, outputs, inputs, weight_OI.itemsize)
        left_Or, right_rI = factorise(weight_OI, rank, self._root_II(stat))
        sparse_OI = torch.zeros_like(weight_OI)
        return SparseLowRank(sparse_OI=sparse_OI, left_Or=left_Or, right_rI=right_rI, pattern=None)

    def _rank(self, pattern: Pattern, outputs: int, inputs: int, itemsize: int) -> int:
        return budget_rank(pattern, outputs, inputs, itemsize) if self.rank is None else self.rank

    def _root_II(self, stat: Any) -> Tensor | None:
        return None


@dataclass(frozen=True, kw_only=True)
class ActivationSVD(SVD):
    """Of all products of its rank the nearest in what it does to the outputs on the calibration inputs.

    `damp` · mean(diag G) is added to the diagonal of G, as SparseGPT does.
    Source: Wang et al.: SVD-LLM, arXiv:2403.07378, which whitens the inputs by a Cholesky factor of G too.
    """

    damp: float = 0.01

    observes: ClassVar[type[InputGram]] = InputGram

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("damp", self.damp)

    @property
    def damping(self) -> float:
        return self.damp

    def _root_II(self, stat: InputGram) -> Tensor:
        return stat.root_II(self.damp)


def factorise(weight_OI: Tensor, rank: int, root_II: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A (O, r) and B (r, I), of all products of this rank the nearest to `weight_OI`, in its dtype.

    Near means small ||(A B − W) R|| with R = `root_II` (`InputGram.root_II`), small ||A B − W|| without it.

    Raises ValueError for a rank that saves nothing: r >= O · I / (O + I).
    """
    check_rank(rank, *weight_OI.shape)
    return project(weight_OI, first_left_vectors(weight_OI, rank, root_II))


def project(weight_OI: Tensor, basis_Or: Tensor) -> tuple[Tensor, Tensor]:
    """A and B with A B = U Uᵀ W, U = `basis_Or` with orthonormal columns, in the dtype of the weight.

    Both carry the singular values: column k of A and row k of B have equal norms, so that neither overflows 16 bits.
    """
    right_rI = basis_Or.T @ weight_OI.double()
    norm_r = right_rI.norm(dim=1)
    scale_r = torch.where(norm_r > 0, norm_r.sqrt(), 1)
    return (basis_Or * scale_r).to(weight_OI.dtype), (right_rI / scale_r[:, None]).to(weight_OI.dtype)


def first_left_vectors(weight_OI: Tensor, rank: int, root_II: Tensor | None = None) -> Tensor:
    """U (O, r) of the singular value decomposition of W R, or of W, in float64.

    They are found by the eigenvectors of the smaller of M Mᵀ and Mᵀ M, which come sooner.
    """
    matrix_OI = weight_OI.double() if root_II is None else weight_OI.double() @ root_II.double()
    outputs, inputs = matrix_OI.shape
    if outputs <= inputs:
        return torch.linalg.eigh(matrix_OI @ matrix_OI.T).eigenvectors[:, outputs - rank :]
    right_Ir = torch.linalg.eigh(matrix_OI.T @ matrix_OI).eigenvectors[:, inputs - rank :]
    return torch.linalg.qr(matrix_OI @ right_Ir).Q
