"""What the stages of this room hand on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.handles import Checkpoint, SliceRow
from tasks.prune.structure.cut_row import CutRow
from tasks.prune.structure.profile_facts import ProfileFacts
from tasks.prune.structure.rows import RemovalRow, RepairRow, SplitRow


@dataclass(frozen=True, kw_only=True)
class Scored:
    """How much units matter by one importance: tensors `<block>.<kind>` in `folder/scores.safetensors`, (units,)."""

    hash: str
    folder: str
    importance: str  # its name in tasks.calibrate.importance.IMPORTANCES


@dataclass(frozen=True, kw_only=True)
class BuiltProfiles:
    """Profiles of a model in `folder` (tasks.prune.structure.profile_folder), and what each leaves; "none" is first."""

    hash: str
    folder: str
    size_bytes: int
    facts: tuple[ProfileFacts, ...]


@dataclass(frozen=True, kw_only=True)
class UnitLoss:
    """The loss of a model without one unit, measured, in nats per token."""

    block: int
    kind: str
    unit: int
    loss: float


@dataclass(frozen=True, kw_only=True)
class CutRows:
    """What became of every block that was left, which went whole, what other ways to divide or repair would cost."""

    blocks: tuple[SliceRow, ...]
    removals: tuple[RemovalRow, ...] = ()
    splits: tuple[SplitRow, ...] = ()
    repairs: tuple[RepairRow, ...] = ()
    removed: float  # of the cost that the budget is a share of, 0 to 1
    removed_flops: float | None = None  # of the FLOPs of the blocks, whatever the budget is a share of

    @property
    def tables(self) -> dict[str, Sequence[Any]]:
        """As they are recorded."""
        return {"slices": self.blocks, "removals": self.removals, "splits": self.splits, "repairs": self.repairs}


@dataclass(frozen=True, kw_only=True)
class Sliced:
    """A smaller model in a `form` of tasks.prune.structure.export, and the rows of how it was cut."""

    checkpoint: Checkpoint
    form: str
    size_bytes: int
    rows: CutRows
    row: CutRow

    @property
    def tables(self) -> dict[str, Sequence[Any]]:
        """As they are recorded."""
        return {"cuts": [self.row], **self.rows.tables}
