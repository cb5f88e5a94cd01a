"""What recovery minimises: a sum over the tokens that are learned.

A sum, not a mean: windows hold unequal numbers of such tokens, so only the whole batch knows what to divide by, however
it is cut into forwards and processes.

The label of a token is its id where it is learned, negative where it is only read.
Axes: B windows, W tokens of a window, P tokens learned in them, V vocabulary.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """Something to minimise. Its fields, and its class, belong to the name of a training."""

    @abstractmethod
    def total(self, model: nn.Module, ids_BW: Tensor, labels_BW: Tensor) -> Tensor:
        """The sum over all tokens learned, in nats: a scalar with a gradient."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What it is, as JSON can hold it."""


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Objective):
    """-log p(next token)."""

    def total(self, model: nn.Module, ids_BW: Tensor, labels_BW: Tensor) -> Tensor:
        learned_BW = learned(labels_BW)
        return cross_entropy(logits_of(model, ids_BW, learned_BW), labels_BW[:, 1:][learned_BW])

    def facts(self) -> dict[str, Any]:
        return {"objective": "cross entropy"}


def learned(labels_BW: Tensor) -> Tensor:
    """Which of the tokens 1 to W - 1 are learned, bool (B, W - 1); the first of a window follows from nothing."""
    return labels_BW[:, 1:] >= 0


def logits_of(model: nn.Module, ids_BW: Tensor, learned_BW: Tensor) -> Tensor:
    """logits_PV in float32, what the model expects where a token is learned."""
    return model(input_ids=ids_BW, use_cache=False).logits[:, :-1][learned_BW].float()


def cross_entropy(logits_PV: Tensor, targets_P: Tensor) -> Tensor:
    """The sum of -log p(target)."""
    return functional.cross_entropy(logits_PV, targets_P, reduction="sum")
