"""What becomes of the weights that stay: a choice of its own, whichever method has chosen them.

Axes: O outputs, I inputs of the linear.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tasks.calibrate.observers import Observer


@dataclass(frozen=True, kw_only=True)
class Updated:
    """The matrix, zero outside its keep, and what is recorded of how it came about."""

    weight_OI: Tensor
    damp: float | None = None  # the share of mean(diag G) that was needed on the diagonal; None where no G was read
    swept_OI: Tensor | None = None  # what `Sweep` makes of the same keep, where both answer to the dense row


@dataclass(frozen=True, kw_only=True)
class Update(ABC):
    """A way to set the weights that stay."""

    @property
    def observes(self) -> type[Observer] | None:
        """What it needs to know of the inputs."""
        return None

    @abstractmethod
    def update(self, weight_OI: Tensor, keep_OI: Tensor, stat: Any) -> Updated:
        """From the dense matrix and its keep; new tensors in the dtype of the dense one."""


@dataclass(frozen=True, kw_only=True)
class Leave(Update):
    """They stay as they were."""

    def update(self, weight_OI: Tensor, keep_OI: Tensor, stat: object) -> Updated:
        return Updated(weight_OI=torch.where(keep_OI, weight_OI, 0))
