"""Training what mitigations learn, block by block: the sparse block is pulled towards the dense model's output.

The block sees what the sparse blocks before it produce. A part of the batches is held out, and the tensors that were
best on it are kept: a block never gets worse there.

Axes: B windows of a batch, T tokens, D model width.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tasks.calibrate.walk import Walk
from tasks.model.mode import evaluating
from tasks.prune.activation.apply import Installed
from tasks.prune.activation.rows import LearnedRow
from tasks.prune.activation.sparse_input import dense, learned


@dataclass(frozen=True, kw_only=True)
class Learn:
    """AdamW for at most `epochs` passes; every `held_out`-th batch, or at least the last, is scored and not trained on.

    `patience`: so many passes without a better score end a block.
    """

    rate: float = 1e-3
    epochs: int = 10
    held_out: int = 8
    patience: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate: {self.rate} given, valid is more than 0")
        for name, least in (("epochs", 1), ("held_out", 2), ("patience", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} given, valid is {least} or more")

    def scored(self, batches: int) -> list[int]:
        """Which of so many batches are held out."""
        return list(range(self.held_out - 1, batches, self.held_out)) or [batches - 1]


def learn(
    installed: Installed,
    batches: Sequence[Tensor],
    settings: Learn,
    on_block: Callable[[LearnedRow], None] | None = None,
) -> list[LearnedRow]:
    """Train the tensors of `installed`, in place. `batches`: ids, (windows, tokens) each, not those that are evaluated.

    ValueError where nothing learns, and for fewer than two batches.
    """
    if not learned(installed.model):
        raise ValueError("mitigation: none that learns is installed; add one such as lpts, or leave the training out")
    if len(batches) < 2:
        raise ValueError("batches: one given, one to train on and one to score on are needed")
    rows = []
    with evaluating(installed.model), _frozen(installed.model), torch.no_grad():
        sparse = Walk(installed.model, installed.anatomy, batches)
        target = sparse.twin()
        for index, block in enumerate(installed.anatomy.blocks):
            with dense(block):
                for _ in target.step(index):
                    pass
            if trained := list(learned(block).values()):
                rows.append(_learn_block(index, sparse, target, trained, settings))
                if on_block is not None:
                    on_block(rows[-1])
            for _ in sparse.step(index):
                pass
    return rows


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Within, no parameter of the model has a gradient but those that are given one."""
    had = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.requires_grad_(False)
        yield
    finally:
        for parameter in had:
            parameter.requires_grad_(True)


def _learn_block(
    index: int, sparse: Walk, target: Walk, trained: Sequence[nn.Parameter], settings: Learn
) -> LearnedRow:
    started, count = time.perf_counter(), len(sparse.hidden)
    scored = settings.scored(count)
    train = [batch for batch in range(count) if batch not in scored]
    energy = sum(target.hidden[batch].float().square().sum().item() for batch in range(count)) / count
    generator = torch.Generator().manual_seed(settings.seed)

    def distance(batch: int) -> Tensor:
        output_BTD = sparse.output(index, batch)
        return (output_BTD - target.hidden[batch].to(output_BTD)).float().square().sum()

    def error() -> float:
        held_out = sum(target.hidden[batch].float().square().sum().item() for batch in scored)
        return sum(distance(batch).item() for batch in scored) / held_out

    before = after = error()
    best, steps, waited = [each.detach().clone() for each in trained], 0, 0
    optimiser = torch.optim.AdamW(trained, lr=settings.rate, weight_decay=0.0)
    try:
        for _ in range(settings.epochs):
            for place in torch.randperm(len(train), generator=generator).tolist():
                with torch.enable_grad():
                    for each in trained:
                        each.requires_grad_(True)
                    (distance(train[place]) / energy).backward()
                optimiser.step()
                optimiser.zero_grad()
                steps += 1
            found, waited = error(), waited + 1
            if found < after:
                best, after, waited = [each.detach().clone() for each in trained], found, 0
            if waited == settings.patience:
                break
    finally:
        for each, value in zip(trained, best, strict=True):
            each.requires_grad_(False)
            each.copy_(value)
            each.grad = None
    seconds = time.perf_counter() - started
    return LearnedRow(block=index, steps=steps, error_from=before, error_to=after, seconds=seconds)
