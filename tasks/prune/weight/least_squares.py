"""What every fit by least squares is told, and which inputs it has to see for that: a refit, and a repair after a cut.

It aims at what the dense rows make of (1 − β) x + β d, of inputs x of the pruned model and d of the dense one, with
ε = damp · mean(diag G) on the diagonal of the Gram G = Σ x xᵀ.
"""

from dataclasses import dataclass

from tasks.calibrate.observers import InputDrift, InputGram

LARGEST_DAMP = 0.1
ROUNDING = 1e-9  # relative


@dataclass(frozen=True, kw_only=True)
class LeastSquares:
    """`drift`: β, 0 for none. `damp`: 1e-4 if not given, 1e-2 with drift correction, `LARGEST_DAMP` at most."""

    drift: float
    damp: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.drift <= 1:
            raise ValueError(f"drift: {self.drift} given, valid is 0 to 1")
        if self.damp is not None and not 0 <= self.damp <= LARGEST_DAMP:
            raise ValueError(f"damp: {self.damp} given, valid is 0 to {LARGEST_DAMP}")

    @property
    def observes(self) -> type[InputGram]:
        return InputDrift if self.drift else InputGram

    @property
    def first_damp(self) -> float:
        """With which to begin."""
        if self.damp is not None:
            return self.damp
        return 1e-2 if self.drift else 1e-4


def more(damp: float) -> float:
    """What comes after a damping that was not enough."""
    return max(10 * damp, 1e-8)
