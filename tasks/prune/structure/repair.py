"""Repair: once units are cut, the linear that read them (o, down) is fitted by least squares to the inputs that stay.

Let x be its inputs in the pruned model, d in the dense one, W its dense rows, k the inputs that stay. The new rows W'
are to make of x_k what the dense rows make of (1 − β) x + β d; β > 0 is drift correction. With G = Σ x xᵀ, C = Σ d xᵀ
and M = (1 − β) G + β C they solve W' (G_kk + ε I) = W M_k + ε W_k. This is what tasks.prune.weight.refit solves for
each row with a keep of its own; here all rows keep the same inputs, and one Cholesky factor serves them. In float64.

Axes: O outputs, I inputs of the reader, K of them that stay.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.calibrate.observers import InputDrift, InputGram
from tasks.prune.weight.least_squares import LARGEST_DAMP, ROUNDING, LeastSquares, more


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """The new rows in the dtype of the dense ones, and what is recorded of how they came about.

    `damp`: ε as a share of mean(diag G). `gain`: by how much the squared error on the tokens seen, damping included,
    is below that of the plain cut, as a share of ||W x||²; at least 0.
    """

    weight_OK: Tensor
    damp: float
    gain: float


@dataclass(frozen=True, kw_only=True)
class Repair(LeastSquares):
    """Least squares with ε = `damp` · mean(diag G), ten times more as often as rounding leaves no Cholesky factor.

    `drift`: β, 0 for none. `damp`: 1e-4 if not given, 1e-2 with drift correction. Every result is shown to be no worse
    than the plain cut on the same inputs with the same damping.
    """

    drift: float = 0.5

    @torch.no_grad()
    def repair(self, weight_OI: Tensor, kept_K: Tensor, stat: InputGram) -> Repaired:
        """From the dense rows and the inputs that stay; `stat` has seen all of its inputs.

        Raises ValueError where no damping up to `LARGEST_DAMP` gives a Cholesky factor.
        """
        dense_OI, gram_IK = weight_OI.double(), stat.gram_II[:, kept_K].double()
        target_OK = dense_OI @ gram_IK
        if isinstance(stat, InputDrift):
            target_OK.lerp_(dense_OI @ stat.cross_II[:, kept_K].double(), self.drift)
        mean = stat.gram_II.diagonal().double().mean().item() or 1.0
        damp, lower_KK = _factor(gram_IK[kept_K], mean, self.first_damp)
        cut_OK = dense_OI[:, kept_K]
        target_OK += damp * mean * cut_OK
        fitted_OK = torch.cholesky_solve(target_OK.T, lower_KK).T
        fallen = _fall(cut_OK, fitted_OK, target_OK, lower_KK)
        energy = stat.output_energy(weight_OI).item()
        return Repaired(
            weight_OK=fitted_OK.to(weight_OI.dtype), damp=damp, gain=max(fallen, 0.0) / energy if energy else 0.0
        )


def _factor(gram_KK: Tensor, mean: float, damp: float) -> tuple[float, Tensor]:
    """The damping that was enough, and the lower Cholesky factor of G_kk + ε I."""
    while True:
        damped_KK = gram_KK.clone()
        damped_KK.diagonal().add_(damp * mean)
        lower_KK, failed = torch.linalg.cholesky_ex(damped_KK)
        if not failed:
            return damp, lower_KK
        if damp >= LARGEST_DAMP:
            raise ValueError(f"damp: the Gram of {len(gram_KK)} inputs has no Cholesky factor even with {damp}")
        damp = more(damp)


def _fall(cut_OK: Tensor, fitted_OK: Tensor, target_OK: Tensor, lower_KK: Tensor) -> float:
    """By how much the damped squared error falls from the plain cut to the fit: never negative but for rounding.

    Up to a constant the error of rows X is ||X L||² − 2 <X, target>, with L the factor of the damped Gram.
    """

    def error(rows_OK: Tensor) -> tuple[float, float]:
        square, product = (rows_OK @ lower_KK).square().sum().item(), (rows_OK * target_OK).sum().item()
        return square - 2 * product, square + 2 * abs(product)

    (cut, scale), (fitted, _) = error(cut_OK), error(fitted_OK)
    if fitted > cut + ROUNDING * scale:
        raise RuntimeError(f"repair: error {fitted} exceeds the {cut} of the plain cut: this is a bug")
    return cut - fitted
