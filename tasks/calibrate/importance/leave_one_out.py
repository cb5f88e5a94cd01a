"""Leave one out: the loss of the model without a unit, measured. It is what all other importances approximate.

Axes: B windows of a batch, T tokens of a window, D model width, U units of one kind in a block.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.calibrate.importance.importance import (
    BLOCKS,
    WHOLE,
    ImportanceByKind,
    Scores,
    Subject,
    Unit,
    units_of_kind,
)
from tasks.calibrate.importance.loss import nll, scored
from tasks.calibrate.importance.silenced import silenced
from tasks.calibrate.walk import Walk
from tasks.model.anatomy import Anatomy
from tasks.model.units import KINDS


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut(ImportanceByKind):
    """The loss without the unit, in nats per token; nothing else in the model changes.

    What the unit hands to its reader is zero, so none of its weights has an effect; a whole attention or FFN adds
    nothing to the hidden states. Every unit of the `kinds` costs a forward of the blocks from its own on;
    `losses_without` measures a sample.
    """

    kinds: tuple[str, ...] = (*WHOLE, *KINDS)

    least_tokens: ClassVar[int] = 2
    whole: ClassVar[bool] = True
    scorable: ClassVar[tuple[str, ...]] = (*WHOLE, *KINDS)

    def _score(self, subject: Subject) -> Scores:
        asked = [
            {kind: units for kind in self.kinds if (units := units_of_kind(of_block, kind))}
            for of_block in subject.units
        ]
        losses = _losses(subject, [unit for of_block in asked for units in of_block.values() for unit in units])
        return [
            {
                kind: torch.tensor([losses[unit] for unit in units], dtype=torch.float64)
                for kind, units in of_block.items()
            }
            for of_block in asked
        ]


def losses_without(model: PreTrainedModel, batches: Sequence[Tensor], sample: Sequence[Unit]) -> dict[Unit, float]:
    """For each unit of the sample the loss of `model` without it, in nats per token.

    Raises ValueError as `Importance.score`, and for a unit that the model does not have.
    """
    with LeaveOneOut()._subject(model, batches, None) as subject:
        return _losses(subject, sample)


@torch.no_grad()
def _losses(subject: Subject, sample: Sequence[Unit]) -> dict[Unit, float]:
    for unit in sample:
        _check(subject, unit)
    walk, losses = subject.walk(), dict.fromkeys(sample, 0.0)
    for index in range(max((unit.block for unit in sample), default=-1) + 1):
        for unit in losses:
            if unit.block == index:
                losses[unit] = _loss_without(subject, walk, unit)
        for _ in walk.step(index):
            pass
    return losses


def _loss_without(subject: Subject, walk: Walk, unit: Unit) -> float:
    """`walk` is before the block of the unit. A whole block is left out by handing on its inputs in its place too."""
    skipped = unit.block + (unit.kind == BLOCKS)
    total = torch.zeros((), dtype=torch.float64, device=subject.device)
    with _zeroed(subject, unit):
        for batch, ids_BT in enumerate(subject.batches):
            with _handing_on(subject.anatomy, skipped, walk.hidden[batch].to(subject.device)):
                total += nll(subject.model, ids_BT)
    return total.item() / scored(subject.batches)


@contextmanager
def _zeroed(subject: Subject, unit: Unit) -> Iterator[None]:
    """Within, what the unit hands to its reader is zero; a whole block has no reader, a part of it gives nothing."""
    if unit.kind == BLOCKS:
        yield
        return
    of_block, linears = subject.units[unit.block], subject.anatomy.linears(unit.block)
    if unit.kind in WHOLE:
        with silenced(linears[of_block.parts[unit.kind]]):
            yield
        return
    units = of_block.of(unit.kind)
    columns_I = torch.arange(units.columns_each, device=subject.device) + unit.unit * units.columns_each

    def zero(linear: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        return inputs[0].index_fill(-1, columns_I, 0)

    handle = linears[units.reader].register_forward_pre_hook(zero)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _handing_on(anatomy: Anatomy, count: int, hidden_BTD: Tensor) -> Iterator[None]:
    """Within, the first `count` blocks do not run: each gives these hidden states, which the next one then gets.

    The substitute is an attribute of the instance: it hides the method of the class until it is deleted.
    """

    def given(*args: object, **kwargs: object) -> Tensor | tuple[Tensor]:
        return (hidden_BTD,) if anatomy.returns_tuple else hidden_BTD

    blocks = anatomy.blocks[:count]
    before = [vars(block).get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = given
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            del block.forward
            if own is not None:
                block.forward = own


def _check(subject: Subject, unit: Unit) -> None:
    blocks = len(subject.units)
    if not 0 <= unit.block < blocks:
        raise ValueError(f"sample: block {unit.block} given, valid is 0 to {blocks - 1}")
    of_block = subject.units[unit.block]
    count = len(units_of_kind(of_block, unit.kind)) or of_block.of(unit.kind).count  # raises, saying what there is
    if not 0 <= unit.unit < count:
        raise ValueError(f"sample: unit {unit.unit} of the {unit.kind} given, valid is 0 to {count - 1}")
