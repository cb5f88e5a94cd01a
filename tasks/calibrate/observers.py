"""What calibration remembers of the inputs of a linear: their norms, their Gram matrix, or how they have drifted.

An observer sees the tokens in any order and any batching, and never keeps them. Each kind knows all that the one before
it knows. Linears that read the same input share one observer, and with it whatever it has derived: one Gram and one
Cholesky serve q, k and v.

Axes: T tokens, I inputs of the linear, O outputs, B a block of inputs.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from copy import copy
from typing import ClassVar, Self

import torch
from torch import Tensor

OBSERVED_TOKENS = 1 << 12  # at a time: an observer makes a float32 copy of them
GRAM_BLOCK = 256  # columns of one product: half a symmetric matrix is left out, and products stay large


class Observer(ABC):
    """Sums over all tokens seen. `count` is their number; `remembers` names what the sums are."""

    remembers: ClassVar[str]

    def __init__(self, in_features: int, device: torch.device | str) -> None:
        self.in_features = in_features
        self.device = torch.device(device)
        self.count = 0

    def update(self, x_TI: Tensor) -> None:
        """Add tokens. ValueError for any shape but (tokens, in_features)."""
        if x_TI.dim() != 2 or x_TI.shape[1] != self.in_features:
            raise ValueError(f"x: shape {tuple(x_TI.shape)} given, (tokens, {self.in_features}) is needed")
        self.count += len(x_TI)
        self._add(x_TI.detach().to(self.device, torch.promote_types(x_TI.dtype, torch.float32)))

    def see(self, x: Tensor) -> None:
        """Add tokens of shape (…, in_features), a few thousand at a time."""
        for x_TI in x.reshape(-1, x.shape[-1]).split(OBSERVED_TOKENS):
            self.update(x_TI)

    def sums(self) -> list[Tensor]:
        """What it remembers, itself and no copy: linears that read one input share it, so nobody may write into it."""
        return [each for each in vars(self).values() if isinstance(each, Tensor)]

    @abstractmethod
    def reordered(self, order_I: Tensor) -> Self:
        """What it would have seen had input j been input `order_I[j]`; an observer of its own."""

    @abstractmethod
    def output_energy(self, weight_OI: Tensor) -> Tensor:
        """Sum of squares of the outputs that `weight_OI` gives on the tokens seen: a scalar, ||W X||^2."""

    @abstractmethod
    def _add(self, x_TI: Tensor) -> None: ...

    def _check(self, sums: Tensor) -> None:
        if self.count == 0:
            raise ValueError("calibration: no tokens were observed")
        if not torch.stack(sums.aminmax()).isfinite().all():
            raise ValueError("calibration: NaN or infinity in the inputs of a linear; the model or its dtype is broken")


class InputNorm(Observer):
    """The l2 norm of each input over all tokens: O(I) memory. Summed in float64."""

    remembers = "norms"

    def __init__(self, in_features: int, device: torch.device | str) -> None:
        super().__init__(in_features, device)
        self._squares_I = torch.zeros(in_features, dtype=torch.float64, device=device)

    def norm_I(self) -> Tensor:
        """float64, at least 0. ValueError before the first token, and where an input was NaN or infinite."""
        self._check(self._squares_I)
        return self._squares_I.sqrt()

    def reordered(self, order_I: Tensor) -> Self:
        other = copy(self)
        other._squares_I = self._squares_I[order_I]
        return other

    def output_energy(self, weight_OI: Tensor) -> Tensor:
        """||W X||^2 as if the inputs were uncorrelated: from the diagonal of the Gram."""
        self._check(self._squares_I)
        return weight_OI.double().square().sum(0) @ self._squares_I

    def _add(self, x_TI: Tensor) -> None:
        self._squares_I += x_TI.square().sum(0)


class InputGram(InputNorm):
    """G = sum of x xᵀ over all tokens: O(I²) memory. float32, or float64 once inputs of float64 have come.

    G is symmetric, so `update` computes the blocks on and below its diagonal only; the others are filled in when G is
    first read. What is derived from G is remembered until more tokens come.
    """

    remembers = "gram"

    def __init__(self, in_features: int, device: torch.device | str) -> None:
        super().__init__(in_features, device)
        self._gram_II = torch.zeros(in_features, in_features, device=device)
        self._whole = False
        self._roots: dict[float, Tensor] = {}

    @property
    def gram_II(self) -> Tensor:
        """ValueError before the first token, and where an input was NaN or infinite."""
        if not self._whole:
            for rows, before in self._blocks():
                self._gram_II[before, rows] = self._gram_II[rows, before].T
            self._check(self._gram_II)
            self._whole = True
        return self._gram_II

    @property
    def dead_I(self) -> Tensor:
        """Which inputs were zero in every token."""
        return self.gram_II.diagonal() == 0

    def check_alive(self) -> None:
        """ValueError where every input was zero in every token: no share of their mean is a damping then."""
        if self.dead_I.all():
            raise ValueError(
                f"calibration: all {self.in_features} inputs were zero in all {self.count} tokens, so nothing is known "
                "of what the linear does; use a method without a Gram or other calibration tokens"
            )

    def root_II(self, damp: float) -> Tensor:
        """The upper triangular R with R Rᵀ = G + damp · mean(diag G) · I, by a Cholesky of G with its axes reversed.

        R⁻¹ is then the upper Cholesky factor of the inverse, which itself is never formed. A dead input takes no part:
        it is left out of the mean and gets the mean as its diagonal. Computed once for each `damp`.

        Raises ValueError where the damped matrix is not positive definite, and where all inputs are dead.
        """
        if damp not in self._roots:
            self.check_alive()
            reversed_II = self.gram_II.flip(0, 1)
            diagonal_I = reversed_II.diagonal()
            dead_I = diagonal_I == 0
            mean = diagonal_I.sum() / (~dead_I).sum().clamp(min=1)
            diagonal_I += torch.where(dead_I, mean, damp * mean)
            failed = torch.empty((), dtype=torch.int32, device=self.device)
            torch.linalg.cholesky_ex(reversed_II, out=(reversed_II, failed))  # in place: one matrix less at the peak
            if failed.item():
                raise ValueError(
                    f"damp: {damp} does not make the Gram of {self.count} tokens on {self.in_features} inputs positive "
                    "definite; raise damp or give more calibration tokens"
                )
            self._roots[damp] = reversed_II.flip(0, 1)
        return self._roots[damp]

    def sums(self) -> list[Tensor]:
        """As of every observer, G filled in, and what is derived from it."""
        return [self.gram_II, *super().sums(), *self._roots.values()]

    def reordered(self, order_I: Tensor) -> Self:
        other = super().reordered(order_I)
        other._gram_II = self.gram_II[order_I][:, order_I]
        other._roots = {}
        return other

    def output_energy(self, weight_OI: Tensor) -> Tensor:
        """Exact: tr(W G Wᵀ), from the blocks on and below the diagonal of G."""
        weight_OI = weight_OI.to(self.gram_II.dtype)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for rows, before in self._blocks():
            weight_OB, gram_BI = weight_OI[:, rows], self._gram_II[rows]
            total += 2 * (weight_OB @ gram_BI[:, before]).mul_(weight_OI[:, before]).sum()
            total += (weight_OB @ gram_BI[:, rows]).mul_(weight_OB).sum()
        return total

    def _add(self, x_TI: Tensor) -> None:
        super()._add(x_TI)
        if x_TI.dtype != self._gram_II.dtype:
            self._gram_II = self._gram_II.to(torch.promote_types(x_TI.dtype, self._gram_II.dtype))
            x_TI = x_TI.to(self._gram_II.dtype)
        for rows, _ in self._blocks():
            x_TB = x_TI[:, rows]
            self._gram_II[rows, : rows.stop].addmm_(x_TB.T, x_TI[:, : rows.stop])
        self._whole = False
        self._roots.clear()

    def _blocks(self) -> Iterator[tuple[slice, slice]]:
        """The blocks of inputs, each with the slice of all inputs before it."""
        for start in range(0, self.in_features, GRAM_BLOCK):
            yield slice(start, min(start + GRAM_BLOCK, self.in_features)), slice(0, start)


class InputDrift(InputGram):
    """Beside G of the inputs x that the pruned model gives, C = sum of d xᵀ with the inputs d of the dense model.

    x and d are the same tokens at the same linear. C - G is how far the inputs have drifted, as the linear sees it.
    """

    def __init__(self, in_features: int, device: torch.device | str) -> None:
        super().__init__(in_features, device)
        self.cross_II = torch.zeros(in_features, in_features, device=device)

    def see_both(self, x: Tensor, dense: Tensor) -> None:
        """As `see`, with the same tokens of the dense model beside them. ValueError where the shapes differ."""
        if x.shape != dense.shape:
            raise ValueError(f"dense: shape {tuple(dense.shape)} given, {tuple(x.shape)} is needed")
        self.see(x)
        dtype = self._gram_II.dtype
        self.cross_II = self.cross_II.to(dtype)
        parts = (whole.reshape(-1, self.in_features).split(OBSERVED_TOKENS) for whole in (dense, x))
        for dense_TI, x_TI in zip(*parts, strict=True):
            self.cross_II.addmm_(dense_TI.T.to(self.device, dtype), x_TI.to(self.device, dtype))

    def reordered(self, order_I: Tensor) -> Self:
        other = super().reordered(order_I)
        other.cross_II = self.cross_II[order_I][:, order_I]
        return other
