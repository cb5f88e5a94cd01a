"""Block reconstruction: once a block is pruned, all its parameters are tuned towards what the dense model gives there.

The block reads the hidden states of the pruned model and is pulled towards those of the dense model, so it makes up for
its own loss and for that of the blocks before it. Few windows are soon learnt by heart; so each time one is shown, its
inputs lie elsewhere on the way from the pruned model's to the dense model's, while the output wanted stays the same.
Zeros stay zero: their gradients are set to zero, and Adam moves nothing that has never had one. Source of the idea of
tuning block by block: arXiv:2510.14444.

Axes: B windows of a batch, T tokens, D model width.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tasks.calibrate.walk import Walk
from tasks.model.anatomy import linears_of
from tasks.prune.weight.tuner import Tuner, Tuning

BETAS = (0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class Reconstruct(Tuner):
    """At most `epochs` of Adam over the calibration batches, its rate falling from `rate` to 0 along a cosine.

    The inputs of a window are x + u (d − x), with x of the pruned and d of the dense model, and u drawn anew each time
    between 0 and `blend`. Every `held_out`-th batch is not trained on. After each epoch the block is scored on these:
    the best state is kept, be it the untuned one, and after `patience` epochs without a better one it ends.
    """

    epochs: int = 15
    rate: float = 7e-4
    blend: float = 1.0
    held_out: int = 16
    patience: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("held_out", 2), ("patience", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} given, valid is {least} or more")
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate: {self.rate} given, valid is more than 0")
        if not 0 <= self.blend <= 1:
            raise ValueError(f"blend: {self.blend} given, valid is 0 to 1")

    def tune(self, index: int, walk: Walk, dense_before: Walk, dense_after: Walk) -> Tuning:
        return reconstruct(index, walk, dense_before, dense_after, self)


def reconstruct(index: int, walk: Walk, dense_before: Walk, dense_after: Walk, settings: Reconstruct) -> Tuning:
    """Tune block `index` in place: see `Tuner.tune`.

    Computed in float32; what is scored is the block in its own dtype, so that rounding cannot make it worse either. Bit
    for bit the same on a CPU for the same seed and number of threads. Raises ValueError for fewer than two batches.
    """
    started, block = time.perf_counter(), walk.blocks[index]
    train, held_out = _divided(len(walk.hidden), settings.held_out)
    energy = sum(dense_after.hidden[batch].float().square().sum().item() for batch in held_out)
    generator = torch.Generator().manual_seed(settings.seed)

    def distance(batch: int, blend: float = 0.0) -> Tensor:
        input_BTD = walk.hidden[batch].to(walk.device, torch.float32)
        if blend:
            share_B11 = blend * torch.rand(len(input_BTD), 1, 1, generator=generator).to(input_BTD)
            input_BTD = input_BTD.lerp(dense_before.hidden[batch].to(input_BTD), share_B11)
        output_BTD = walk.call(index, batch)(block, input_BTD)
        return (output_BTD - dense_after.hidden[batch].to(output_BTD)).square().sum()

    def error() -> float:
        with torch.no_grad(), _rounded(block, dtypes):
            return sum(distance(batch).item() for batch in held_out) / energy

    with _trainable(block) as dtypes, torch.enable_grad():
        keeps = {linear.weight: linear.weight != 0 for linear in linears_of(block).values()}
        optimiser = torch.optim.Adam(block.parameters(), lr=settings.rate, betas=BETAS)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs * len(train))
        before = after = error()
        best, steps, waited = _state(block), 0, 0
        while before > 0 and steps < settings.epochs * len(train) and waited < settings.patience:
            for place in torch.randperm(len(train), generator=generator).tolist():
                (distance(train[place], settings.blend) / (before * energy)).backward()
                for weight_OI, keep_OI in keeps.items():
                    assert weight_OI.grad is not None
                    weight_OI.grad.mul_(keep_OI)
                optimiser.step()
                optimiser.zero_grad()
                decay.step()
                steps += 1
            found = error()
            waited += 1
            if found < after:
                best, after, waited = _state(block), found, 0
        block.load_state_dict(best)
    return Tuning(tuned_steps=steps, tuned_seconds=time.perf_counter() - started, tuned_from=before, tuned_to=after)


def _divided(batches: int, held_out: int) -> tuple[list[int], list[int]]:
    """The batches to train on, and every `held_out`-th, or at least the last, to score on."""
    if batches < 2:
        raise ValueError("reconstruct: one calibration batch given, one to train on and one to score on are needed")
    scored = list(range(held_out - 1, batches, held_out)) or [batches - 1]
    return [batch for batch in range(batches) if batch not in scored], scored


def _state(block: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in block.state_dict().items()}


@contextmanager
def _trainable(block: nn.Module) -> Iterator[dict[nn.Parameter, torch.dtype]]:
    """Within, every parameter is float32 and has a gradient; yields their own dtypes, which they then have again."""
    own = {parameter: (parameter.dtype, parameter.requires_grad) for parameter in block.parameters()}
    try:
        for parameter in own:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
        yield {parameter: dtype for parameter, (dtype, _) in own.items()}
    finally:
        for parameter, (dtype, has_gradient) in own.items():
            parameter.grad = None
            parameter.data = parameter.data.to(dtype)
            parameter.requires_grad_(has_gradient)


@contextmanager
def _rounded(block: nn.Module, dtypes: dict[nn.Parameter, torch.dtype]) -> Iterator[None]:
    """Within, the parameters have the values that their own dtypes can hold."""
    exact = {parameter: parameter.data for parameter, dtype in dtypes.items() if dtype != torch.float32}
    try:
        for parameter, data in exact.items():
            parameter.data = data.to(dtypes[parameter]).float()
        yield
    finally:
        for parameter, data in exact.items():
            parameter.data = data
