"""Exact refit: the least-squares weights on a given support, output by output.

Let H = G + ε I. Of all rows w that are zero outside the keep, the one with the least (w − b) H (w − b)ᵀ is wanted. b is
the best row without that restriction: the dense row itself, or, with drift correction, the row that turns the inputs x
of the pruned model into what the dense row makes of (1 − β) x + β d, where d are the inputs of the dense model. On its
kept inputs k, w solves H_kk w_k = (b H)_k. Where fewer inputs D are dropped than kept, the same w comes cheaper as
b − b_D (H⁻¹_DD)⁻¹ H⁻¹_D. All in float64, in batches of rows with nearly equal counts.

Axes: O outputs, I inputs of the linear, R rows of a batch, K inputs that are solved for.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.calibrate.observers import InputDrift, InputGram
from tasks.prune.weight.least_squares import LARGEST_DAMP, ROUNDING, LeastSquares, more
from tasks.prune.weight.sweep import Sweep
from tasks.prune.weight.update import Update, Updated

BATCH_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 27}  # of the systems that are solved at once


@dataclass(frozen=True, kw_only=True)
class Refit(LeastSquares, Update):
    """Least squares with ε = `damp` · mean(diag G), ten times more as often as rounding spoils a Cholesky factor.

    `drift`: β, 0 for none. `damp`: 1e-4 if not given, 1e-2 with drift correction. On every linear the result is shown
    to be no farther from b, in the norm of H, than the sweep on the same keep; a row that loses this by being rounded
    to 16 bits is that of the sweep. With drift correction b is not the dense row, so the error of the sweep, which is
    taken from that, is not given.
    """

    drift: float = 0.0

    def update(self, weight_OI: Tensor, keep_OI: Tensor, stat: InputGram) -> Updated:
        """Raises ValueError where no damping up to `LARGEST_DAMP` is enough, and for a Gram of zeros.

        With drift correction `stat` has to be an `InputDrift`: ValueError for one that has seen one stream alone.
        """
        if not isinstance(stat, self.observes):
            raise ValueError(f"stat: {type(stat).__name__} given, {self} needs {self.observes.__name__}")
        stat.check_alive()
        swept_OI = Sweep().update(weight_OI, keep_OI, stat).weight_OI
        damp = self.first_damp
        while (fitted_OI := self._fit(weight_OI.double(), keep_OI, stat, damp, swept_OI)) is None:
            if damp >= LARGEST_DAMP:
                raise ValueError(f"damp: even {damp} leaves the Gram of {stat.in_features} inputs too near to singular")
            damp = more(damp)
        comparable = None if self.drift else swept_OI
        return Updated(weight_OI=fitted_OI, damp=damp, swept_OI=comparable)

    def _fit(self, dense_OI: Tensor, keep_OI: Tensor, stat: InputGram, damp: float, swept_OI: Tensor) -> Tensor | None:
        """The fitted rows in the dtype of the swept ones, and no worse; None where rounding in float64 forbids that."""
        gram_II = stat.gram_II.double()
        damped_II = gram_II.clone()
        damped_II.diagonal().add_(damp * gram_II.diagonal().mean())
        lower_II, failed = torch.linalg.cholesky_ex(damped_II)
        if failed:
            return None
        best_OI, moment_OI = dense_OI, dense_OI @ damped_II
        energy = (moment_OI * dense_OI).sum().item()
        if self.drift and isinstance(stat, InputDrift):
            moment_OI += self.drift * (dense_OI @ (stat.cross_II.double() - gram_II))
            best_OI = torch.cholesky_solve(moment_OI.T, lower_II).T
        fitted_OI = fit(best_OI, moment_OI, keep_OI, damped_II, lower_II)
        if fitted_OI is None or not _is_no_worse(fitted_OI - best_OI, swept_OI - best_OI, damped_II, energy):
            return None
        rounded_OI = fitted_OI.to(swept_OI.dtype)
        errors_O = [_errors(rows_OI - best_OI, damped_II) for rows_OI in (rounded_OI, swept_OI.double())]
        return torch.where((errors_O[0] <= errors_O[1])[:, None], rounded_OI, swept_OI)


def fit(best_OI: Tensor, moment_OI: Tensor, keep_OI: Tensor, damped_II: Tensor, lower_II: Tensor) -> Tensor | None:
    """The rows on the support `keep_OI` that are nearest to `best_OI` in the norm of H; None where `_solve` fails.

    `moment_OI` is `best_OI` @ H, `damped_II` is H, and `lower_II` its lower Cholesky factor; all float64.
    """
    fitted_OI = torch.zeros_like(best_OI)
    few_kept_O = keep_OI.sum(1) <= keep_OI.shape[1] / 2
    rows = few_kept_O.nonzero()[:, 0]
    for rows_R, inputs_RK, valid_RK in _batches(keep_OI, rows):
        solved_RK = _solve(damped_II, inputs_RK, valid_RK, moment_OI[rows_R].gather(1, inputs_RK))
        if solved_RK is None:
            return None
        fitted_OI[rows_R] = fitted_OI[rows_R].scatter_add_(1, inputs_RK, solved_RK)
    rows = (~few_kept_O).nonzero()[:, 0]
    if len(rows):
        inverse_II = torch.cholesky_inverse(lower_II)
        for rows_R, inputs_RK, valid_RK in _batches(~keep_OI, rows):
            solved_RK = _solve(inverse_II, inputs_RK, valid_RK, best_OI[rows_R].gather(1, inputs_RK))
            if solved_RK is None:
                return None
            push_RI = torch.zeros_like(best_OI[rows_R]).scatter_add_(1, inputs_RK, solved_RK)
            fitted_OI[rows_R] = best_OI[rows_R] - push_RI @ inverse_II
    return fitted_OI.masked_fill_(~keep_OI, 0)


def _batches(chosen_OI: Tensor, rows: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of rows with the inputs chosen in each; those with fewer are filled up with others, `valid` is False."""
    count_O = chosen_OI.sum(1)
    rows = rows[count_O[rows].argsort(descending=True)]
    largest = BATCH_ELEMENTS[chosen_OI.device.type]
    while len(rows):
        count = max(int(count_O[rows[0]]), 1)
        rows_R, rows = rows.tensor_split([max(1, largest // count**2)])
        chosen_RI = chosen_OI[rows_R]
        inputs_RK = chosen_RI.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
        yield rows_R, inputs_RK, chosen_RI.gather(1, inputs_RK)


def _solve(system_II: Tensor, inputs_RK: Tensor, valid_RK: Tensor, right_RK: Tensor) -> Tensor | None:
    """For each row the solution of the part of the system that belongs to its valid inputs; 0 for the others.

    None where a part has no Cholesky factor.
    """
    system_RKK = system_II[inputs_RK[:, :, None], inputs_RK[:, None, :]]
    if not valid_RK.all():
        system_RKK *= valid_RK[:, :, None] & valid_RK[:, None, :]
        system_RKK.diagonal(dim1=1, dim2=2).add_(~valid_RK)
    lower_RKK, failed_R = torch.linalg.cholesky_ex(system_RKK)
    if failed_R.any():
        return None
    half_RK1 = torch.linalg.solve_triangular(lower_RKK, (right_RK * valid_RK)[:, :, None], upper=False)
    return torch.linalg.solve_triangular(lower_RKK.mT, half_RK1, upper=True)[:, :, 0]


def _is_no_worse(fitted_OI: Tensor, swept_OI: Tensor, damped_II: Tensor, energy: float) -> bool:
    """Of two distances to the best rows. `energy` of the dense ones, of which rounding leaves some where both are 0."""
    fitted, swept = (_errors(rows_OI, damped_II).sum().item() for rows_OI in (fitted_OI, swept_OI.double()))
    return fitted <= swept * (1 + ROUNDING) + ROUNDING**2 * energy


def _errors(rows_OI: Tensor, damped_II: Tensor) -> Tensor:
    """The squared norm of each row, (O,)."""
    return (rows_OI @ damped_II).mul_(rows_OI).sum(1)
