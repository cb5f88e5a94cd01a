"""The weights of all linears that share an input as one matrix, transposed: what a sparse token is multiplied by.

The linears go on with views of it as their weights, so it takes the memory that they took.

Axes: T tokens, I inputs, O outputs, of one linear after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tasks.prune.activation.products import Product
from tasks.prune.activation.read import Read


@dataclass(frozen=True)
class Fused:
    """`most_tokens`: up to so many at once the product that reads kept rows alone is the faster one; 0 for never.

    `constant_O`: the product of what stands in for dropped inputs: of η where that is one for each input, of ones where
    it is one number for each token. `threshold`: of a choice that is nothing else, which the product applies itself.
    """

    weight_IO: Tensor
    constant_O: Tensor | None
    most_tokens: int
    product: Product
    threshold: Tensor | None = None

    def wins(self, x_TI: Tensor) -> bool:
        return len(x_TI) <= self.most_tokens and not torch.is_grad_enabled()

    def multiply(self, read: Read) -> Tensor:
        """(kept + shift) · W, (T, O)."""
        if self.threshold is not None:
            return self.product(read.x_TI, self.weight_IO, self.threshold)
        chosen = read.chosen
        product_TO = self.product(chosen.kept_TI, self.weight_IO, None)
        if chosen.shift is None:
            return product_TO
        assert self.constant_O is not None
        return product_TO + (self.constant_O if chosen.shift.dim() == 1 else chosen.shift * self.constant_O)


@torch.no_grad()
def fuse(linears: Sequence[nn.Linear]) -> Tensor:
    """One matrix, (I, O), of which the weights of these linears then are views."""
    weight_IO = torch.cat([each.weight.detach() for each in linears]).T.contiguous()
    start = 0
    for each in linears:
        each.weight.data = weight_IO[:, start : start + each.out_features].T
        start += each.out_features
    return weight_IO


@torch.no_grad()
def unfuse(linears: Sequence[nn.Linear]) -> None:
    """Each has a weight of its own again, as it was laid out in memory before."""
    for each in linears:
        each.weight.data = each.weight.data.contiguous()
