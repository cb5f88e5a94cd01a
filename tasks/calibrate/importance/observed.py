"""Importances that need the weights of one block, and at most what calibration saw of the inputs of its linears.

One forward through the blocks serves all kinds of units, and one block at a time is looked at.

Axes: U units of one kind in a block.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tasks.calibrate.importance.coupled import Coupled, coupled_of
from tasks.calibrate.importance.importance import Importance, Scores, Subject
from tasks.calibrate.observers import Observer
from tasks.calibrate.walk import Walk, lent
from tasks.model.anatomy import before_each
from tasks.model.units import BlockUnits


@dataclass(frozen=True, kw_only=True)
class ObservedImportance(Importance):
    """`observes` is the observer that it needs of the inputs; None for the weights alone."""

    observes: ClassVar[type[Observer] | None] = None

    @abstractmethod
    def of_units(self, coupled: Sequence[Coupled], stats: Mapping[str, Any]) -> Tensor:
        """The scores of one kind of units, float64 (U,).

        `coupled`: the weights they consist of, the reader's last; `stats`: by linear, an instance of `observes` each.
        """

    @torch.no_grad()
    def _score(self, subject: Subject) -> Scores:
        walk = subject.walk() if self.observes else None
        return [self._of_block(subject, of_block, walk) for of_block in subject.units]

    def _of_block(self, subject: Subject, of_block: BlockUnits, walk: Walk | None) -> dict[str, Tensor]:
        linears = subject.anatomy.linears(of_block.block)
        with lent(subject.anatomy.blocks[of_block.block], subject.device):
            stats = self._observe(subject, of_block.block, walk) if walk else {}
            return {
                kind: self.of_units(coupled_of(units, linears), stats).cpu() for kind, units in of_block.kinds.items()
            }

    def _observe(self, subject: Subject, index: int, walk: Walk) -> dict[str, Observer]:
        """For each linear the observer of its input, shared by those that read one. The walk moves on."""
        assert self.observes is not None
        linears = subject.anatomy.linears(index)
        groups = {group[0]: group for group in subject.anatomy.shared_inputs[index]}
        seen = {first: self.observes(linears[first].in_features, walk.device) for first in groups}
        with before_each({first: linears[first] for first in groups}, lambda first, x: seen[first].see(x)):
            for _ in walk.step(index):
                pass
        return {name: seen[first] for first, group in groups.items() for name in group}
