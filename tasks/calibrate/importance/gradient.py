"""Importances from gradients: what the loss says about scaling a unit.

The derivative of the loss by a factor on all weights of a unit is w·g, the inner product of these weights with their
gradient. It is all that is needed of a gradient, so each matrix of it is summed up and dropped as soon as backward has
it: there is never more than one.

Axes: N units of a model: of all blocks and kinds, one after the other; U units of one kind in a block.
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.calibrate.importance.coupled import Coupled, coupled_of, precise
from tasks.calibrate.importance.importance import Importance, Scores, Subject
from tasks.model.mode import only_gradients_of

Products = Callable[[Tensor], Tensor]  # a loss -> w·g of its gradient for every unit, float64 (N,)


@dataclass(frozen=True, kw_only=True)
class GradientImportance(Importance):
    """Needs a backward through the whole model, and memory for what that keeps of a forward."""

    least_tokens: ClassVar[int] = 2
    whole: ClassVar[bool] = True

    @abstractmethod
    def of_products(self, model: PreTrainedModel, batches: Sequence[Tensor], products: Products) -> Tensor:
        """The scores of all units, float64 (N,)."""

    def _score(self, subject: Subject) -> Scores:
        sizes = [units.count for of_block in subject.units for units in of_block.kinds.values()]
        if not sizes:
            raise ValueError(f"model: {type(subject.model).__name__} has no head groups, query heads or channels")
        with _products(subject, sizes) as products:
            parts = iter(self.of_products(subject.model, subject.batches, products).cpu().split(sizes))
        return [{kind: next(parts) for kind in of_block.kinds} for of_block in subject.units]


@contextmanager
def _products(subject: Subject, sizes: Sequence[int]) -> Iterator[Products]:
    """Within, losses can be asked for; afterwards every parameter has the flag and the gradient that it had."""
    total_N = torch.zeros(sum(sizes), dtype=torch.float64, device=subject.device)
    uses: dict[Tensor, list[tuple[Coupled, Tensor]]] = defaultdict(list)  # with a part of `total_N` each
    parts = iter(total_N.split(list(sizes)))
    for of_block in subject.units:
        linears = subject.anatomy.linears(of_block.block)
        for units in of_block.kinds.values():
            part_U = next(parts)
            for coupled in coupled_of(units, linears):
                uses[coupled.parameter].append((coupled, part_U))

    def add(parameter: Tensor) -> None:
        assert parameter.grad is not None
        product = precise(parameter.detach()) * precise(parameter.grad)
        parameter.grad = None
        for coupled, part_U in uses[parameter]:
            part_U += coupled.sums(product)

    def products(loss: Tensor) -> Tensor:
        total_N.zero_()
        loss.backward()
        return total_N.clone()

    with only_gradients_of(subject.model, uses), ExitStack() as hooks, torch.enable_grad():
        for parameter in uses:
            hooks.callback(parameter.register_post_accumulate_grad_hook(add).remove)
        yield products
