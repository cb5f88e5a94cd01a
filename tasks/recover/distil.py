"""Distillation: the pruned model is pulled towards what the dense model expects, and towards the text.

Source: Hinton, Vinyals, Dean, arXiv:1503.02531. Axes: B windows, W tokens of a window, P tokens learned, V vocabulary.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax
from transformers import PreTrainedModel

from tasks.model.mode import evaluating
from tasks.recover.objective import Objective, cross_entropy, learned, logits_of


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """soft · T² · KL(dense ‖ pruned), both at temperature T, plus hard · cross entropy.

    T² makes up for the gradient's falling with 1/T², so the weights mean the same at every temperature.
    """

    temperature: float = 2.0
    soft: float = 1.0
    hard: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature: {self.temperature} given, valid is more than 0")
        for name in ("soft", "hard"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: {getattr(self, name)} given, valid is 0 or more")
        if self.soft == 0:
            raise ValueError("soft: 0 given, which asks nothing of the dense model; valid is more than 0")


@dataclass(frozen=True, kw_only=True)
class Distil(Distillation, Objective):
    """A distillation from `dense`, which may lie on a device of its own; of several processes, each must have it."""

    dense: PreTrainedModel

    def total(self, model: nn.Module, ids_BW: Tensor, labels_BW: Tensor) -> Tensor:
        learned_BW = learned(labels_BW)
        logits_PV = logits_of(model, ids_BW, learned_BW)
        there = self.dense.device
        with evaluating(self.dense), torch.no_grad():
            dense_PV = logits_of(self.dense, ids_BW.to(there), learned_BW.to(there)).to(logits_PV.device)
        soft = self.soft * self.temperature**2 * divergence(dense_PV, logits_PV, self.temperature)
        return soft + self.hard * cross_entropy(logits_PV, labels_BW[:, 1:][learned_BW])

    def facts(self) -> dict[str, Any]:
        return {"objective": "distil", "temperature": self.temperature, "soft": self.soft, "hard": self.hard}


def divergence(dense_PV: Tensor, logits_PV: Tensor, temperature: float) -> Tensor:
    """The sum over tokens of KL(softmax(dense / T) ‖ softmax(logits / T)), in nats. ValueError for unequal shapes."""
    if dense_PV.shape != logits_PV.shape:
        raise ValueError(
            f"dense: a vocabulary of {dense_PV.shape[-1]} given, the pruned model has one of {logits_PV.shape[-1]}"
        )
    dense_PV, logits_PV = (log_softmax(logits / temperature, dim=-1) for logits in (dense_PV, logits_PV))
    return kl_div(logits_PV, dense_PV, reduction="sum", log_target=True)
