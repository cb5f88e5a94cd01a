"""The usual walk over a Llama-like model: watch all linears of a block, prune them, then run the block again.

Every linear has an object of its own that sees its inputs and then prunes it; two forwards of every block are paid.

Axes: B windows of a batch, T tokens of a window or of all windows, D model width, O outputs, I inputs of a linear.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bench import textbook
from tasks.prune.weight.pattern import Pattern


class Magnitude:
    """Remembers nothing of the inputs."""

    def __init__(self, linear: nn.Linear) -> None:
        self.weight_OI = linear.weight.data

    def update(self, x_TI: Tensor) -> None:
        pass

    def pruned(self, pattern: Pattern) -> Tensor:
        return self.weight_OI * textbook.keep(textbook.magnitude_score(self.weight_OI), pattern)


class Wanda:
    """Sums the squares of every input over all tokens."""

    def __init__(self, linear: nn.Linear) -> None:
        self.weight_OI = linear.weight.data
        self.squares_I = torch.zeros(linear.in_features)

    def update(self, x_TI: Tensor) -> None:
        self.squares_I += x_TI.square().sum(0)

    def pruned(self, pattern: Pattern) -> Tensor:
        score_OI = textbook.wanda_score(self.weight_OI, self.squares_I.sqrt())
        return self.weight_OI * textbook.keep(score_OI, pattern)


class SparseGPT:
    """Keeps H = 2 X Xᵀ / tokens as a running mean."""

    def __init__(self, linear: nn.Linear) -> None:
        self.weight_OI = linear.weight.data
        self.hessian_II = torch.zeros(linear.in_features, linear.in_features)
        self.tokens = 0

    def update(self, x_TI: Tensor) -> None:
        self.hessian_II *= self.tokens / (self.tokens + len(x_TI))
        self.tokens += len(x_TI)
        x_TI = (2 / self.tokens) ** 0.5 * x_TI
        self.hessian_II += x_TI.T @ x_TI

    def pruned(self, pattern: Pattern) -> Tensor:
        return textbook.sparsegpt(self.weight_OI, self.hessian_II, pattern)


METHODS: dict[str, type[Magnitude] | type[Wanda] | type[SparseGPT]] = {
    "magnitude": Magnitude,
    "wanda": Wanda,
    "sparsegpt": SparseGPT,
}


def prune_model(model: PreTrainedModel, method: str, pattern: Pattern, batches: Sequence[Tensor]) -> None:
    """In place. Magnitude runs no forward."""

    def prune(linear: nn.Linear, seen: Magnitude | Wanda | SparseGPT) -> None:
        linear.weight.data = seen.pruned(pattern)

    walk(model, () if method == "magnitude" else batches, METHODS[method], prune)


@torch.no_grad()
def walk(model: PreTrainedModel, batches: Sequence[Tensor], observer: Callable, prune: Callable) -> None:
    """Call `prune(linear, observer)` for every linear, each block on what the pruned blocks before it produce."""
    hidden = [model.model.embed_tokens(ids_BT) for ids_BT in batches]
    for block in model.model.layers:
        observers = {linear: observer(linear) for linear in linears_of(block)}
        with ExitStack() as hooks:
            for linear in observers:
                hooks.enter_context(linear.register_forward_hook(partial(observe, observers)))
            for hidden_BTD in hidden:
                run(model, block, hidden_BTD)
        for linear, seen in observers.items():
            prune(linear, seen)
        hidden = [run(model, block, hidden_BTD) for hidden_BTD in hidden]


def run(model: PreTrainedModel, block: nn.Module, hidden_BTD: Tensor) -> Tensor:
    """One block on one batch; without a mask, transformers' attention is causal by itself."""
    position_ids = torch.arange(hidden_BTD.shape[1]).unsqueeze(0)
    return block(hidden_BTD, position_embeddings=model.model.rotary_emb(hidden_BTD, position_ids=position_ids))


def observe(observers: dict, linear: nn.Linear, inputs: tuple[Tensor], _: Tensor) -> None:
    observers[linear].update(inputs[0].flatten(0, -2))


def linears_of(module: nn.Module) -> list[nn.Linear]:
    return [child for child in module.modules() if isinstance(child, nn.Linear)]
