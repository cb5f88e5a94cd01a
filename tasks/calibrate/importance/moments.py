"""What importances remember of each input of a linear: its mean size and its variance, beside its norm.

Axes: T tokens, I inputs of the linear.
"""

from typing import Self

import torch
from torch import Tensor

from tasks.calibrate.observers import InputNorm


class InputMoments(InputNorm):
    """Mean, mean size and variance of each input over all tokens: O(I) memory, in float64.

    Tokens are compared with their own mean before they are squared, and parts are joined as Chan, Golub and LeVeque do
    (Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979): an input that is large and hardly
    varies loses nothing to rounding.
    """

    remembers = "moments"

    def __init__(self, in_features: int, device: torch.device | str) -> None:
        super().__init__(in_features, device)
        self._sizes_I, self._mean_I, self._deviations_I = torch.zeros(
            3, in_features, dtype=torch.float64, device=device
        )

    def size_I(self) -> Tensor:
        """The mean of |x_j|. ValueError before the first token, and where an input was NaN or infinite."""
        self._check(self._sizes_I)
        return self._sizes_I / self.count

    def variance_I(self) -> Tensor:
        """Σ (x_j − mean)² / (tokens − 1). ValueError before the second token, and where one was NaN or infinite."""
        if self.count == 1:
            raise ValueError("calibration: one token was observed, a variance needs two")
        self._check(self._deviations_I)
        return self._deviations_I / (self.count - 1)

    def reordered(self, order_I: Tensor) -> Self:
        other = super().reordered(order_I)
        other._sizes_I, other._mean_I = self._sizes_I[order_I], self._mean_I[order_I]
        other._deviations_I = self._deviations_I[order_I]
        return other

    def _add(self, x_TI: Tensor) -> None:
        super()._add(x_TI)
        self._sizes_I += x_TI.abs().sum(0, dtype=torch.float64)
        mean_I = x_TI.mean(0, dtype=torch.float64)
        apart_I = mean_I - self._mean_I
        share = len(x_TI) / self.count  # `count` includes these tokens
        self._deviations_I += (x_TI - mean_I.to(x_TI.dtype)).square().sum(0, dtype=torch.float64)
        self._deviations_I += apart_I.square() * (self.count - len(x_TI)) * share
        self._mean_I += apart_I * share
