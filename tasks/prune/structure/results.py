"""What the stages of this room hand on."""

from dataclasses import dataclass

from tasks.handles import Checkpoint, SliceRow
from tasks.prune.structure.profile_facts import ProfileFacts


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
class Sliced:
    """A smaller model in a `form` of tasks.prune.structure.export, and what became of every block that was left."""

    checkpoint: Checkpoint
    form: str
    size_bytes: int
    blocks: tuple[SliceRow, ...]
