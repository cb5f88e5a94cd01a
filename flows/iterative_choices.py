"""What the flow `iterative` is told: a model, what is to be left of it, in how many stages, on which texts."""

import shlex
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from flows.choices import kinds_scored
from flows.methods import USUAL_IMPORTANCE, Choice, ImportanceChoice, choices_of, parse_choice
from flows.recoveries import Recovering
from tasks.calibrate.importance import IMPORTANCES
from tasks.prune.structure.reach import KINDS
from tasks.recover.stages import least_steps
from tasks.train_controller.allocators import SEARCHERS

ALLOCATORS = choices_of({name: SEARCHERS[name] for name in ("uniform", "adapt")})  # those that look at no loss
if TYPE_CHECKING:
    StageAllocator = Choice
else:
    StageAllocator = Annotated[reduce(or_, ALLOCATORS.values()), Field(discriminator="method")]


class Iterative(Recovering):
    """One run of the flow `iterative`."""

    target_parameters: int = Field(ge=1, description="what is to be left of the whole model")
    stages: int = Field(ge=1, description="the model is cut so often, and trained after each cut")
    importance: ImportanceChoice = USUAL_IMPORTANCE
    allocator: StageAllocator = ALLOCATORS["uniform"](method="uniform")
    calibration_window: int | None = Field(None, ge=2, description="tokens of a calibration window; by default window")
    round_to: int = Field(64, ge=1, description="the channels that stay are a multiple of it")
    repair: bool = Field(True, description="fit the linears that read what was cut to what is left, by least squares")

    @model_validator(mode="after")
    def _every_option_can_be_met(self) -> Self:
        if not self.recover_tokens:
            raise ValueError("recover_tokens: 0 given, between cuts is trained; to cut without training use slice")
        if isinstance(self.recover, Choice):
            raise ValueError(f"recover: {self.recover} given, valid is full: adapters do not outlast a cut")
        if not {*KINDS} <= {*kinds_scored(self.importance.build())}:
            able = [name for name, kind in IMPORTANCES.items() if {*KINDS} <= {*kinds_scored(kind())}]
            raise ValueError(
                f"importance: {self.importance} gives no scores of {', '.join(KINDS)}; valid is {', '.join(able)}"
            )
        if self.samples < 2:
            raise ValueError("samples: 1 given, valid is 2 or more: one is held out")
        return self

    def least_tokens(self, window: int) -> int:
        """With fewer tokens in all, the first stage would train nothing."""
        return least_steps(self.stages) * self.recover_batch * window

    @property
    def name(self) -> str:
        """What the rows call it: `wanda_sp+adapt+repair+stages=5+recover,tokens=65536`."""
        allocator = [self.allocator.label] if self.allocator.method != "uniform" else []
        repaired = ["repair"] if self.repair else []
        staged = f"stages={self.stages}"
        return "+".join([self.importance.label, *allocator, *repaired, staged, *self.recovery_label()])

    @property
    def pattern(self) -> str:
        """What is left, `to 143.1M`."""
        return f"to {self.target_parameters / 1e6:.4g}M"

    def command(self) -> str:
        """The command line that repeats this run."""
        words = ["espalier", "iterative"]
        for name in ("model", "calibration", "evaluation", "target_parameters", "stages", "importance"):
            words += [f"--{name.replace('_', '-')}", str(getattr(self, name))]
        words += self._changed("allocator", "calibration_window", "round_to") + self.recovery_words()
        words += [] if self.repair else ["--no-repair"]
        words += self._changed("samples", "window", "sampling", "seed", "device")
        return shlex.join(words if self.speed else [*words, "--no-speed"])


def parse_allocator(text: str) -> Choice:
    """`uniform`, `adapt` or `adapt,amplitude=0.02,step=0.02`. ValueError names what is valid."""
    return parse_choice("allocator", text, ALLOCATORS)
