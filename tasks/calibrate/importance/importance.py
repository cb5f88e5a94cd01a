"""What every importance of units does, apart from its formula: checks, and a model taken apart once.

Axes: B windows of a batch, T tokens of a window, U units of one kind in a block.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.calibrate.walk import Walk, check_walk
from tasks.model.anatomy import Anatomy, dissect
from tasks.model.mode import evaluating
from tasks.model.units import PARTS, BlockUnits, units_in

BLOCKS = "blocks"  # the kind of a block as a whole
WHOLE = (BLOCKS, *PARTS)  # the kinds of which a block has one unit: itself, its attention, its FFN

# Of each block, by kind of unit: float64 (U,) on the CPU. The higher, the more the unit matters.
Scores = list[dict[str, Tensor]]


class Unit(NamedTuple):
    """One unit: of a kind of tasks.model.units.KINDS, or of WHOLE, whose unit is 0."""

    block: int
    kind: str
    unit: int


def units_of_kind(of_block: BlockUnits, kind: str) -> list[Unit]:
    """All units of one kind in a block; none where it has no such kind."""
    return [Unit(of_block.block, kind, unit) for unit in range(_count(of_block, kind))]


def _count(of_block: BlockUnits, kind: str) -> int:
    if kind in WHOLE:
        return int(kind == BLOCKS or kind in of_block.parts)
    return of_block.kinds[kind].count if kind in of_block.kinds else 0


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model taken apart, and the text on which its units are judged. `device`: where a block is meanwhile."""

    model: PreTrainedModel
    anatomy: Anatomy
    units: Sequence[BlockUnits]
    batches: Sequence[Tensor]
    device: torch.device

    def walk(self) -> Walk:
        """Before block 0. Raises ValueError for a model whose blocks cannot be walked."""
        check_walk(self.model, self.anatomy, self.batches[0])
        return Walk(self.model, self.anatomy, self.batches, self.device)


@dataclass(frozen=True, kw_only=True)
class Importance(ABC):
    """A method with its hyper-parameters.

    `least_tokens`: how long a window has to be; 0 for a method that looks at the weights alone. `whole`: whether the
    model runs as a whole, not one block at a time.
    """

    least_tokens: ClassVar[int] = 1
    whole: ClassVar[bool] = False

    def only(self, kinds: Collection[str]) -> Self:
        """The same, of no other than these kinds of units where each costs work of its own; else all of them."""
        return self

    def score(
        self,
        model: PreTrainedModel,
        batches: Sequence[Tensor] | None = None,
        device: torch.device | str | None = None,
    ) -> Scores:
        """How much each unit of each block of `model` matters; scores of one kind can be compared, also across blocks.

        `batches`: ids, (windows, tokens) each, of any shapes; how the windows are dealt out to batches changes nothing.
        `device`: where a block is while it is looked at, None for where the model is. The model stays as it is.

        Raises ValueError without batches that the method needs, for batches of other shapes or of too short windows,
        for a `device` that a method of the whole model is not on, and for a model that is not made of walkable blocks
        or gives NaN or infinity.
        """
        with self._subject(model, batches, device) as subject:
            scores = self._score(subject)
        for block, of_block in enumerate(scores):
            for kind, score_U in of_block.items():
                if not score_U.isfinite().all():
                    raise ValueError(
                        f"scores: NaN or infinity in the {kind} of block {block}; the model or its dtype is broken"
                    )
        return scores

    @abstractmethod
    def _score(self, subject: Subject) -> Scores:
        """`score` of a checked subject."""

    @contextmanager
    def _subject(
        self, model: PreTrainedModel, batches: Sequence[Tensor] | None, device: torch.device | str | None
    ) -> Iterator[Subject]:
        """The model taken apart, after all checks; it is in evaluation mode within."""
        place = torch.device(device or model.device)
        if self.whole and (place.type, place.index or 0) != (model.device.type, model.device.index or 0):
            name = type(self).__name__
            raise ValueError(f"device: {place} given, {name} runs the whole model, which is on {model.device}")
        text = list(batches or ())
        self._check_batches(text)
        with evaluating(model):
            anatomy = dissect(model)
            units = units_in(anatomy, model.config)
            yield Subject(model=model, anatomy=anatomy, units=units, batches=text, device=place)

    def _check_batches(self, batches: Sequence[Tensor]) -> None:
        if self.least_tokens and not batches:
            raise ValueError(f"batches: none given; {type(self).__name__} needs calibration windows")
        for ids_BT in batches:
            if ids_BT.dim() != 2 or ids_BT.is_floating_point() or not len(ids_BT):
                given = f"{ids_BT.dtype} of shape {tuple(ids_BT.shape)}"
                raise ValueError(f"batches: {given} given, valid are ids of shape (windows, tokens)")
            if ids_BT.shape[1] < self.least_tokens:
                needed = f"{type(self).__name__} needs {self.least_tokens} or more"
                raise ValueError(f"batches: windows of {ids_BT.shape[1]} tokens given, {needed}")


@dataclass(frozen=True, kw_only=True)
class ImportanceByKind(Importance):
    """One that works for each kind of units by itself: of the `kinds` alone."""

    kinds: tuple[str, ...]

    scorable: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        if not self.kinds or not {*self.kinds} <= {*self.scorable}:
            raise ValueError(f"kinds: {self.kinds} given, valid are some of {', '.join(self.scorable)}")

    def only(self, kinds: Collection[str]) -> Self:
        return replace(self, kinds=tuple(kind for kind in self.kinds if kind in kinds))
