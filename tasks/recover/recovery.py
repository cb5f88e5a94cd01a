"""How much to train, in what steps, at what rate: the settings of a recovery."""

import math
from dataclasses import dataclass

from tasks.recover.schedule import trapezoid


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How to train: `tokens` in all, `batch` windows a step, the learning rate `rate` at its peak.

    `warmup` and `decay` are fractions of the steps. `at_once`: windows of one forward; None: a process's whole share of
    the batch. `recompute`: the backward pass computes activations again, which are then not kept (gradient
    checkpointing).
    """

    tokens: int
    rate: float = 2e-5
    batch: int = 16
    at_once: int | None = None
    warmup: float = 0.05
    decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0  # of matrices
    clip: float = 1.0  # largest l2 norm of the gradient
    recompute: bool = False
    seed: int = 0  # of dropout

    def __post_init__(self) -> None:
        for name in ("rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: {getattr(self, name)} given, valid is more than 0")
        for name, given in (
            ("batch", self.batch),
            ("at_once", 1 if self.at_once is None else self.at_once),
            ("tokens", self.tokens),
        ):
            if given < 1:
                raise ValueError(f"{name}: {given} given, valid is 1 or more")
        for name in ("warmup", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} given, valid is a fraction of the steps, 0 to 1")
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup: {self.warmup} with a decay of {self.decay} is longer than the training")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: {self.betas} given, valid are two of 0 or more and less than 1")
        for name in ("weight_decay", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: {getattr(self, name)} given, valid is 0 or more")

    def steps(self, window: int) -> int:
        """How many whole steps the tokens give. ValueError where there is none."""
        steps = self.tokens // (self.batch * window)
        if steps == 0:
            raise ValueError(f"tokens: {self.tokens} given, fewer than one step of {self.batch} windows of {window}")
        return steps

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step: that of the curve at the step's middle."""
        return self.rate * trapezoid((step + 0.5) / steps, self.warmup, self.decay)

    def share(self, processes: int) -> tuple[int, int]:
        """The windows of a process in a step, and of one forward. ValueError where the batch cannot be cut so."""
        own = self.batch // processes
        at_once = self.at_once or max(own, 1)
        if self.batch % (processes * at_once):
            raise ValueError(
                f"batch: {self.batch} given, valid is a multiple of {processes} processes x {at_once} windows"
            )
        return own, at_once


@dataclass(frozen=True, kw_only=True)
class Span:
    """The steps from `first` to before `last` of a training, which goes on later where it was left.

    What a step does, its rate and its windows, follows from its number in the whole training, so that spans one after
    the other are that training.
    """

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.last:
            raise ValueError(f"span: {self.first} to {self.last} given, valid is one step or more from 0 on")

    def check(self, steps: int) -> None:
        """ValueError where the training is over before."""
        if self.last > steps:
            raise ValueError(f"span: {self.first} to {self.last} given, the training has {steps} steps")

    @property
    def steps(self) -> int:
        return self.last - self.first
