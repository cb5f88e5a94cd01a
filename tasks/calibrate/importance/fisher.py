"""Fisher: the curvature of the loss along a unit, as the gradients of single windows show it.

At a minimum, where the summed gradient vanishes, removing weights w costs ½ wᵀHw, and H is there about the sum of g gᵀ
over samples. So that a unit's weights are taken together, the inner product is squared and not each weight's share.

Source: Kwon et al.: A Fast Post-Training Pruning Framework for Transformers, arXiv:2204.09656.
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
class Fisher(GradientImportance):
    """Σ_s (w·g_s)² with w all weights of the unit: rows with their biases, and columns of the reader.

    A sample s is one window, and g_s the gradient of its own loss, in nats per token.
    """

    def of_products(self, model: PreTrainedModel, batches: Sequence[Tensor], products: Products) -> Tensor:
        windows = [ids_1T for ids_BT in batches for ids_1T in ids_BT.split(1)]
        return sum((products(nll(model, ids_1T) / scored([ids_1T])).square() for ids_1T in windows), torch.zeros(()))
