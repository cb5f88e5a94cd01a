"""What may remain of a weight matrix: a share of its weights, or n of every m consecutive inputs.

A pattern turns scores into a keep. Counts are exact within each comparison group, and of equal scores the one with the
lower index is kept.

Axes: O outputs, I inputs of the linear, G groups that are compared within themselves, N elements of a group.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import torch
from torch import Tensor

from tasks.prune.weight.selection import keep_largest

FORMS = "n:m with 1 <= n <= m (2:4), a percentage below 100 of each row (50%) or of the whole matrix (50%@matrix)"


class Pattern(ABC):
    """`str(pattern)` is what `parse_pattern` reads. `sparsity` is the share that is dropped, 0 to 1."""

    sparsity: float

    def keep(self, score_OI: Tensor) -> Tensor:
        """Which weights stay: bool, same shape.

        Raises ValueError for NaN or infinity among the scores, and for inputs that the pattern does not divide.
        """
        if score_OI.dim() != 2:
            raise ValueError(f"score: shape {tuple(score_OI.shape)} given, (outputs, inputs) is needed")
        if not self.divides(score_OI.shape[1]):
            raise ValueError(f"pattern: {self} does not divide {score_OI.shape[1]} inputs")
        if score_OI.numel() and not torch.stack(score_OI.aminmax()).isfinite().all():
            raise ValueError("score: NaN or infinity among the scores")
        return self.select(score_OI.detach())

    def divides(self, in_features: int) -> bool:
        """Whether the pattern can be laid over so many inputs."""
        return True

    def surplus(self, pruned_OI: Tensor) -> int:
        """How many weights are there that should not be: those above the count of each group; here, of the matrix."""
        size = pruned_OI.numel()
        return max(0, int(pruned_OI.count_nonzero()) - (size - int(size * self.sparsity)))

    @abstractmethod
    def select(self, score_OI: Tensor) -> Tensor:
        """`keep` without its checks, which make a GPU wait: for callers that have made them."""


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Drops exactly int(n * sparsity) of the n weights of each row, or of the whole matrix."""

    sparsity: float = 0.5
    within: Literal["row", "matrix"] = "row"

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity: {self.sparsity} given, valid is 0 <= sparsity < 1")
        if self.within not in ("row", "matrix"):
            raise ValueError(f"within: {self.within!r} given, valid is 'row' or 'matrix'")

    def select(self, score_OI: Tensor) -> Tensor:
        score_GN = self._groups(score_OI)
        return keep_largest(score_GN, self._kept(score_GN)).view(score_OI.shape)

    def surplus(self, pruned_OI: Tensor) -> int:
        pruned_GN = self._groups(pruned_OI)
        return int((pruned_GN.count_nonzero(1) - self._kept(pruned_GN)).clamp(min=0).sum())

    def _groups(self, matrix_OI: Tensor) -> Tensor:
        return matrix_OI if self.within == "row" else matrix_OI.reshape(1, -1)

    def _kept(self, matrix_GN: Tensor) -> int:
        """Of each group."""
        size = matrix_GN.shape[1]
        return size - int(size * self.sparsity)

    def __str__(self) -> str:
        percent = (Decimal(repr(self.sparsity)) * 100).normalize()
        return f"{percent:f}%" if self.within == "row" else f"{percent:f}%@matrix"


@dataclass(frozen=True)
class NM(Pattern):
    """Keeps n of every m consecutive inputs, in every row."""

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.m:
            raise ValueError(f"n:m: {self.n}:{self.m} given, valid is 1 <= n <= m")

    @property
    def sparsity(self) -> float:  # type: ignore[override]
        return 1 - self.n / self.m

    def divides(self, in_features: int) -> bool:
        return in_features % self.m == 0

    def select(self, score_OI: Tensor) -> Tensor:
        return keep_largest(score_OI.reshape(-1, self.m), self.n).reshape(score_OI.shape)

    def surplus(self, pruned_OI: Tensor) -> int:
        return int((pruned_OI.reshape(-1, self.m).count_nonzero(1) - self.n).clamp(min=0).sum())

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


def parse_pattern(text: str) -> Pattern:
    """`2:4`, `50%`, `50%@matrix`. ValueError in one line that lists what is valid."""
    try:
        if found := re.fullmatch(r"(\d+):(\d+)", text):
            return NM(int(found[1]), int(found[2]))
        if found := re.fullmatch(r"(\d+(?:\.\d+)?)%(@matrix)?", text):
            return Unstructured(float(Decimal(found[1]) / 100), "matrix" if found[2] else "row")
    except ValueError as error:
        raise ValueError(f"pattern: {text!r} is not valid ({error}); use {FORMS}") from error
    raise ValueError(f"pattern: {text!r} is not valid; use {FORMS}")
