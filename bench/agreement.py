"""Whether the textbook and Espalier keep the same weights.

To compare two whole runs of SparseGPT is a matter of luck: where two weights are equal up to rounding, either may go,
and from there on the runs calibrate on different streams. On stories3M one weight in 10,000 of the second block
has moved a tenth of the keeps of the last. So both prune every linear on the same inputs, those of the textbook's run.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bench import textbook_walk
from tasks.prune import PRUNERS
from tasks.prune.weight.pattern import Pattern

UNTIED = 1e-5  # noise that breaks ties, relative to the spread of the values


class Both:
    """What the textbook and what Espalier remember of the inputs of one linear."""

    def __init__(self, method: str, linear: nn.Linear) -> None:
        self.linear = linear
        self.pruner = PRUNERS[method]()
        self.textbook = textbook_walk.METHODS[method](linear)
        self.espalier: Any = self.pruner.observes and self.pruner.observes(linear.in_features, "cpu")

    def update(self, x_TI: Tensor) -> None:
        self.textbook.update(x_TI)
        self.espalier.update(x_TI)

    def pruned(self, pattern: Pattern) -> tuple[Tensor, Tensor]:
        return self.textbook.pruned(pattern), self.pruner.prune(self.linear.weight, self.espalier, pattern)


def linear_by_linear(model: PreTrainedModel, method: str, pattern: Pattern, batches: Sequence[Tensor]) -> float:
    """IoU of the keeps of all linears of the model, each pruned by both sides on the same inputs. Prunes in place."""
    common = either = 0

    def prune(linear: nn.Linear, seen: Both) -> None:
        nonlocal common, either
        one_OI, other_OI = seen.pruned(pattern)
        common += int(((one_OI != 0) & (other_OI != 0)).sum())
        either += int(((one_OI != 0) | (other_OI != 0)).sum())
        linear.weight.data = one_OI

    batches = () if PRUNERS[method].observes is None else batches
    textbook_walk.walk(model, batches, lambda linear: Both(method, linear), prune)
    return common / either


def iou(one: Tensor, other: Tensor) -> float:
    """Intersection over union of two keeps."""
    return float((one & other).sum() / (one | other).sum())


def untied(values_OI: Tensor) -> Tensor:
    """Slightly different values, of which hardly two are equal.

    Weights that were once 8-bit are full of ties. Which of them stays is a rule of its own, not a matter of the method.
    """
    noise_OI = torch.randn(values_OI.shape, generator=torch.Generator().manual_seed(0))
    return values_OI + UNTIED * values_OI.std() * noise_OI
