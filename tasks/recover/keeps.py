"""Zeros of a pruned model, and how training leaves them where they are.

A weight that has never had a gradient has no momentum either, so Adam never moves it: it is enough to set its gradient
to zero. Axes: O outputs, I inputs of a linear.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.model.anatomy import find_blocks, linears_of


def pruned_linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linears of the decoder blocks that have zeros, by their names in the model."""
    name, blocks = find_blocks(model)
    linears = {f"{name}.{linear}": module for linear, module in linears_of(blocks).items()}
    return {linear: module for linear, module in linears.items() if has_zeros(module.weight)}


def has_zeros(weight_OI: Tensor) -> bool:
    """Whether any weight is exactly zero."""
    return bool((weight_OI == 0).any())


@torch.no_grad()
def keep_of(weight_OI: Tensor) -> Tensor:
    """keep_OI: where the weight is not zero."""
    return weight_OI.detach() != 0


@torch.no_grad()
def hold(keeps: Mapping[Tensor, Tensor]) -> None:
    """Set the gradient of every weight that is not kept to zero."""
    for weight_OI, keep_OI in keeps.items():
        if weight_OI.grad is not None:
            weight_OI.grad.mul_(keep_OI)
