"""Taylor: how much the loss would change if a unit were removed, were it linear in the unit's weights.

Source: Ma, Fang, Wang: LLM-Pruner: On the Structural Pruning of Large Language Models, arXiv:2305.11627,
after Molchanov et al., arXiv:1906.10771; the first order alone.
Axes: B windows of a batch, T tokens of a window, N units of a model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.calibrate.importance.gradient import GradientImportance, Products
from tasks.calibrate.importance.loss import nll, scored


@dataclass(frozen=True, kw_only=True)
class Taylor(GradientImportance):
    """|Σ w·g| over all weights of the unit: rows with their biases, and columns of the reader.

    g is the gradient of the loss on all batches, in nats per token, summed before anything is made positive; so what
    pushes one way in one window and the other way in the next counts for nothing.
    """

    def of_products(self, model: PreTrainedModel, batches: Sequence[Tensor], products: Products) -> Tensor:
        tokens = scored(batches)
        return sum((products(nll(model, ids_BT) / tokens) for ids_BT in batches), torch.zeros(())).abs()
