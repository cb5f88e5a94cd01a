"""What the stages of this room take and hand on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.prune.allocation import Allocation
from tasks.prune.structure.cut import Cut
from tasks.prune.structure.results import Scored
from tasks.prune.weight.pattern import Pattern
from tasks.train_controller.allocators.features import Summary
from tasks.train_controller.allocators.rows import AllocationRow, AllocatorRow, CandidateRow, SearchRow
from tasks.train_controller.allocators.weight_rungs import level_pattern


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """How many rungs each weight outlasts: tensors `<block>.<linear>` in `folder/outlasted.safetensors`, uint8 (O, I).

    `scores`: those of each part, in the order of the problem's parts.
    """

    hash: str
    folder: str
    scores: tuple[Summary, ...]


@dataclass(frozen=True, kw_only=True)
class OfUnits:
    """A budget of units: those of low scores go first, and `cut` says how much goes, of what, and in which steps."""

    scored: Scored
    cut: Cut

    @property
    def content(self) -> dict[str, Any]:
        """What tells a loss apart: not how much is to go in the end, nor what is done then."""
        cut = self.cut
        return {"scores": self.scored.hash, "cost": cut.cost, "kinds": cut.kinds, "round_to": cut.round_to}


@dataclass(frozen=True, kw_only=True)
class OfWeights:
    """A budget of zeros: weights of low scores go first, and `pattern` says how many in all."""

    ranked: Ranked
    pattern: Pattern

    @property
    def content(self) -> dict[str, Any]:
        """What tells a loss apart: not how much is to go in the end."""
        return {"ranks": self.ranked.hash, "pattern": str(level_pattern(self.pattern, 1))}


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What a search found: of zeros an `allocation`, of units how many are `left` in each block (`Cut.left`)."""

    levels: tuple[int, ...]
    allocation: Allocation | None
    left: tuple[tuple[int, ...], ...] | None
    allocator: AllocatorRow
    moves: tuple[SearchRow, ...]
    parts: tuple[AllocationRow, ...]
    candidates: tuple[CandidateRow, ...]

    @property
    def tables(self) -> dict[str, Sequence[Any]]:
        """As they are recorded."""
        return {
            "allocators": [self.allocator],
            "searches": self.moves,
            "allocations": self.parts,
            "candidates": self.candidates,
        }
