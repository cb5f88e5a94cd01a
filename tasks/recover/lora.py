"""LoRA on a pruned model: thin updates are trained in place of the weights, and merging them keeps every zero.

A linear W gets the update alpha / rank · up · down (Hu et al., arXiv:2106.09685), multiplied by its keep where W has
zeros. The forward uses the same product, so what is merged at the end is what was trained. Where there are no zeros
the two thin factors are applied one after the other, and the product is formed only to be merged.

Axes: O outputs, I inputs of a linear, R rank.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from tasks.model.anatomy import find_blocks, linears_of
from tasks.recover.keeps import has_zeros, keep_of


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """`linears`: names of linears in a block, or of what holds them: q_proj, self_attn; without any: every linear."""

    rank: int = 16
    alpha: float = 32.0
    linears: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank: {self.rank} given, valid is 1 or more")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha: {self.alpha} given, valid is more than 0")

    def chooses(self, linear: str) -> bool:
        """Of a linear by its name in its block."""
        return not self.linears or any(f".{chosen}." in f".{linear}." for chosen in self.linears)

    def check(self, blocks: Sequence[Mapping[str, nn.Linear]]) -> None:
        """ValueError for a name that `blocks`, their linears by name, have not."""
        names = list(dict.fromkeys(name for linears in blocks for name in linears))
        for chosen in self.linears:
            if not any(f".{chosen}." in f".{name}." for name in names):
                raise ValueError(f"linears: {chosen} given, valid are {', '.join(names)}")


class Adapted(nn.Module):
    """A linear with an update beside it, at first zero. `keep_OI` is None where the linear has no zeros."""

    keep_OI: Tensor | None

    def __init__(self, original: nn.Linear, lora: LoRA, generator: torch.Generator) -> None:
        super().__init__()
        weight_OI = original.weight
        rows, columns = weight_OI.shape
        down_RI = torch.randn(lora.rank, columns, generator=generator) / math.sqrt(columns)
        self.original = original
        self.scale = lora.alpha / lora.rank
        self.down_RI = nn.Parameter(down_RI.to(weight_OI.device))
        self.up_OR = nn.Parameter(torch.zeros(rows, lora.rank, device=weight_OI.device))
        self.register_buffer("keep_OI", keep_of(weight_OI) if has_zeros(weight_OI) else None, persistent=False)

    def merged_OI(self) -> Tensor:
        """The weight with its update, in the weight's dtype: zero wherever the weight is."""
        with torch.autocast(self.up_OR.device.type, enabled=False):  # the same in training as in the merge
            update_OI = self.scale * (self.up_OR @ self.down_RI)
        if self.keep_OI is not None:
            update_OI = update_OI * self.keep_OI
        return (self.original.weight + update_OI).to(self.original.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x (…, I) to (…, O)."""
        if self.keep_OI is not None:
            return linear(x, self.merged_OI(), self.original.bias)
        update = linear(linear(x.to(self.down_RI.dtype), self.down_RI), self.up_OR)
        return self.original(x) + (self.scale * update).to(x.dtype)


@contextmanager
def adapters(model: PreTrainedModel, lora: LoRA, seed: int = 0) -> Iterator[dict[str, Adapted]]:
    """Within, only the adapters of the chosen linears are trained; at the end they are merged into the weights.

    Where the body fails they are removed and the weights are what they were. Either way the model has its own linears
    again, and has a gradient where it had one before. Yields the adapters by the names of their linears in the model.
    `seed`: of the factors that are not zero at first.

    Raises ValueError for a linear that no block has.
    """
    chosen = _choose(model, lora)
    generator = torch.Generator().manual_seed(seed)
    installed = {name: Adapted(original, lora, generator) for name, original in chosen.items()}
    trained = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.requires_grad_(False)
        for name, adapted in installed.items():
            model.set_submodule(name, adapted)
        for adapted in installed.values():
            adapted.up_OR.requires_grad_(True)
            adapted.down_RI.requires_grad_(True)
        yield installed
        merge(installed)
    finally:
        for name, original in chosen.items():
            model.set_submodule(name, original)
        for parameter, requires_grad in trained.items():
            parameter.requires_grad_(requires_grad)


@torch.no_grad()
def merge(installed: Mapping[str, Adapted]) -> None:
    """Write every update into its weight, in place."""
    for adapted in installed.values():
        adapted.original.weight.copy_(adapted.merged_OI())
        adapted.up_OR.zero_()


def _choose(model: PreTrainedModel, lora: LoRA) -> dict[str, nn.Linear]:
    """The linears that get an adapter, by their names in the model."""
    name, blocks = find_blocks(model)
    every = [linears_of(block) for block in blocks]
    lora.check(every)
    return {
        f"{name}.{index}.{linear}": module
        for index, linears in enumerate(every)
        for linear, module in linears.items()
        if lora.chooses(linear)
    }
