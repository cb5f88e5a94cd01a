"""What may be done to a block once its linears are pruned."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from tasks.calibrate.walk import Walk


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What it did, as a BlockRow has it: ||block − dense||² / ||dense||² before and after, on batches held out."""

    tuned_steps: int
    tuned_seconds: float
    tuned_from: float
    tuned_to: float


@dataclass(frozen=True, kw_only=True)
class Tuner(ABC):
    """A way to tune a pruned block; its zeros stay."""

    @abstractmethod
    def tune(self, index: int, walk: Walk, dense_before: Walk, dense_after: Walk) -> Tuning:
        """Tune a block in place. `walk` holds its inputs, the others what the dense model has before and after."""
