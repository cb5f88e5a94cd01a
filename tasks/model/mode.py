"""The mode of a model for as long as it is read, and then again what it was: evaluation, and what takes a gradient."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout within; the mode of every module is restored, also where modes were mixed."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def only_gradients_of(model: nn.Module, wanted: Collection[Tensor]) -> Iterator[None]:
    """Within, only these parameters require a gradient, and none has one."""
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    among = set(wanted)
    try:
        for parameter, _, _ in before:
            parameter.requires_grad_(parameter in among)
            parameter.grad = None
        yield
    finally:
        for parameter, flag, gradient in before:
            parameter.requires_grad_(flag)
            parameter.grad = gradient
