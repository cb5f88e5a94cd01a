"""Low rank beside zeros: W as the sum of a sparse matrix S and a product L of two thin factors.

One of the two is found while the other is held: S by pruning W − L; L as the nearest product to W − S, in the norm of
the outputs (tasks.prune.weight.svd). Nothing is taken of what is pruned already: S and L answer to the dense W in every
round.

The first L comes of a whole decomposition. From one round to the next W − S changes little, so the basis U of L is
turned towards its first singular vectors by subspace iteration, U ← orth(M Mᵀ U) with M = (W − S) R: from where the
last round ended, and never losing. After the product M it takes O(O I r) in place of O(O³).

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
from tasks.prune.weight.share import share_out
from tasks.prune.weight.svd import first_left_vectors, project

SETTLED = 1e-5  # a turn that takes away less of what is left out is the last one
ROUNDING = 1e-12


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
    alone: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share: {self.share} given, valid is between 0 and 1")
        check_not_negative("damp", self.damp)
        if self.rounds < 1:
            raise ValueError(f"rounds: {self.rounds} given, valid is 1 or more")

    @property
    def damping(self) -> float:
        return self.damp

    def check(self, pattern: Pattern, outputs: int, inputs: int) -> None:
        share_out(pattern, self.share, outputs, inputs)

    def _decompose(self, weight_OI: Tensor, stat: InputGram, pruner: Pruner | None, pattern: Pattern) -> Decomposed:
        """Never worse than `pruner` with `pattern` alone on the tokens of `stat`.

        The pattern of S and the rank: `tasks.prune.weight.share.share_out`.
        """
        if pruner is None:
            raise ValueError(f"pruner: none given, {type(self).__name__} needs one for its sparse part")
        alone_OI, _ = pruner.prune_and_keep(weight_OI, stat, pattern)
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
        root_II = stat.root_II(self.damp).double()
        basis_Or = first_left_vectors(weight_OI, rank, root_II)
        left_Or, right_rI = project(weight_OI, basis_Or)
        for _ in range(self.rounds):
            sparse_OI, _ = pruner.prune_and_keep(weight_OI - merge(None, left_Or, right_rI), stat, pattern)
            rest_OI = weight_OI - sparse_OI
            basis_Or = turn(basis_Or, rest_OI, root_II)
            left_Or, right_rI = project(rest_OI, basis_Or)
            yield sparse_OI, left_Or, right_rI


def turn(basis_Or: Tensor, matrix_OI: Tensor, root_II: Tensor) -> Tensor:
    """The basis, turned towards the first left singular vectors of M = `matrix_OI` R until it has settled.

    What is left out, ||M||² − ||Uᵀ M||², grows in no turn. In float64; `basis_Or` has orthonormal columns.
    """
    weighed_OI = matrix_OI.double() @ root_II.double()
    whole = weighed_OI.square().sum()
    left_out = torch.inf
    while True:
        thin_Ir = weighed_OI.T @ basis_Or
        before, left_out = left_out, float(whole - thin_Ir.square().sum())
        if not before - left_out > max(SETTLED * left_out, ROUNDING * float(whole)):  # NaN ends it too
            return basis_Or
        basis_Or = torch.linalg.qr(weighed_OI @ thin_Ir).Q


def _relative_error(merged_OI: Tensor, weight_OI: Tensor, stat: InputGram) -> float:
    energy = stat.output_energy(weight_OI).item()
    return stat.output_energy(merged_OI - weight_OI).item() / energy if energy > 0 else 0.0
