"""What a flow's parameters may be: one set of types for the command line, the presets and the form in Prefect."""

import re
import shlex
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from flows.methods import (
    ALLOCATION_CHOICES,
    AllocationChoice,
    LowRankChoice,
    PrunerChoice,
    Strict,
    TunerChoice,
    UpdateChoice,
    one_line,
)
from tasks.data.sources import parse_source
from tasks.prune.allocators import Given
from tasks.prune.weight.pattern import parse_pattern
from tasks.prune.weight.recipe import Recipe
from tasks.prune.weight.sparsegpt import SparseGPT


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ValueError(f"device: {text!r} given, valid is auto, cpu, cuda or cuda:1")
    return text


DeviceText = Annotated[str, AfterValidator(_device)]
PatternText = Annotated[str, AfterValidator(lambda text: str(parse_pattern(text)))]
SourceText = Annotated[str, AfterValidator(lambda text: str(parse_source(text)))]


class Oneshot(Strict):
    """One run of the flow `oneshot`: a model, a method, a pattern, two texts."""

    model: str = Field("builtin", description="a folder, a name on the hub, or 'builtin'")
    pruner: PrunerChoice | None = Field(description="null: none, where low rank takes the place of the weights")
    pattern: PatternText = "2:4"
    calibration: SourceText = "docs"
    evaluation: SourceText = "docs"
    update: UpdateChoice | None = Field(
        None, description="of the weights that stay; by default as the pruner leaves them"
    )
    permute: bool = Field(False, description="order the inputs of each linear so that n:m keeps more")
    low_rank: LowRankChoice | None = Field(None, description="two factors beside the zeros, or in place of weights")
    reconstruct: TunerChoice | None = Field(None, description="tune each block once it is pruned")
    allocation: AllocationChoice = ALLOCATION_CHOICES["uniform"](method="uniform")
    samples: int = Field(128, ge=1, description="calibration windows")
    window: int | None = Field(
        None, ge=2, description="tokens a window; by default 2048, or the model's context if shorter"
    )
    sampling: Literal["random", "first"] = "random"
    order: Literal["block", "group"] = "block"
    seed: int = Field(0, ge=0)
    device: DeviceText = "auto"
    speed: bool = Field(True, description="measure prefill and decode speed beside the dense model")

    @model_validator(mode="after")
    def _every_option_is_used(self) -> Self:
        recipe = self.recipe()  # raises for options that contradict each other
        self.allocation.build().check(recipe.pattern)
        if isinstance(recipe.pruner, SparseGPT) and getattr(recipe.pattern, "within", "row") == "matrix":
            raise ValueError(f"pattern: {self.pattern} given, but sparsegpt compares within blocks of columns; use 50%")
        if self.reconstruct is not None and self.samples < 2:
            raise ValueError("samples: 1 given, but to reconstruct one is needed to train on and one to hold out")
        return self

    @model_validator(mode="after")
    def _a_seed_draws_something(self) -> Self:
        if self.sampling == "first" and self.seed:
            raise ValueError("seed: sampling takes the first windows, so no seed is drawn from; leave it out")
        return self

    def recipe(self) -> Recipe:
        return Recipe(
            pruner=None if self.pruner is None else self.pruner.build(),
            pattern=parse_pattern(self.pattern),
            update=None if self.update is None else self.update.build(),
            permute=self.permute,
            low_rank=None if self.low_rank is None else self.low_rank.build(),
            reconstruct=None if self.reconstruct is None else self.reconstruct.build(),
            order=self.order,
        )

    @property
    def name(self) -> str:
        """What the rows call it: the pruner and whatever else changes the result, `sparsegpt+refit+reconstruct`."""
        allocation = self.allocation if self.allocation.method != "uniform" else None
        parts = [self.pruner, self.update, self.low_rank, self.reconstruct, allocation]
        names = [part.label for part in parts if part is not None]
        names += [word for word, given in (("permute", self.permute), ("group", self.order == "group")) if given]
        return "+".join(names)

    def command(self) -> str:
        """The command line that repeats this run."""
        words = ["espalier", "oneshot", "--model", self.model, "--pruner", str(self.pruner or "none")]
        for name in ("pattern", "calibration", "evaluation"):
            words += [f"--{name}", getattr(self, name)]
        for word, choice in (("--update", self.update), ("--low-rank", self.low_rank)):
            words += [word, str(choice)] if choice is not None else []
        words += ["--permute"] if self.permute else []
        words += ["--reconstruct", *str(self.reconstruct).split(",", 1)[1:]] if self.reconstruct is not None else []
        if isinstance(given := self.allocation.build(), Given):
            words += ["--allocation", str(list(given.sparsities))]
        elif self.allocation.method != "uniform":
            words += ["--allocation", str(self.allocation)]
        for name in ("samples", "window", "sampling", "order", "seed", "device"):
            if getattr(self, name) != type(self).model_fields[name].default:
                words += [f"--{name}", str(getattr(self, name))]
        return shlex.join(words if self.speed else [*words, "--no-speed"])

    @classmethod
    def parse(cls, **words: Any) -> Self:
        """From the words of a command line; ValueError is one line with the field and what is valid."""
        try:
            return cls(**words)
        except ValidationError as error:
            raise ValueError(one_line(error)) from error


class Sweep(Strict):
    """One run of the flow `sweep`: the points of a grid, in order."""

    name: str
    points: tuple[Oneshot, ...]
