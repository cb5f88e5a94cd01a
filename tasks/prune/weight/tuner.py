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
    def tune(self, walk: Walk, dense: Walk, index: int) -> Tuning:
        """Tune block `index` in place. `walk` holds its inputs, `dense` the outputs that the dense model has there."""
