"""What a flow's parameters may be: one set of types for the command line, the presets and the form in Prefect."""

import shlex
from hashlib import sha256
from typing import Literal, Self

from pydantic import Field, model_validator

from flows.activation_choices import Activation
from flows.allocator_choices import Searching, Shared
from flows.methods import (
    ALLOCATION_CHOICES,
    LONGEST_LABEL,
    SEARCHER_CHOICES,
    USUAL_IMPORTANCE,
    AllocationChoice,
    Choice,
    ImportanceChoice,
    LowRankChoice,
    Names,
    PatternText,
    PrunerChoice,
    Strict,
    TunerChoice,
    UpdateChoice,
    allocation_words,
)
from tasks.calibrate.importance import IMPORTANCES
from tasks.calibrate.importance.correlation import LEAST
from tasks.calibrate.importance.importance import Importance, ImportanceByKind
from tasks.model.modules import ALL
from tasks.model.units import KINDS
from tasks.prune.allocators import Allocator
from tasks.prune.structure.cut import Cut
from tasks.prune.weight.pattern import parse_pattern
from tasks.prune.weight.recipe import Recipe
from tasks.prune.weight.sparsegpt import SparseGPT


class Oneshot(Searching):
    """One run of the flow `oneshot`: a model, a method, a pattern, two texts."""

    pruner: PrunerChoice | None = Field(description="null: none, where low rank takes the place of the weights")
    pattern: PatternText = "2:4"
    update: UpdateChoice | None = Field(
        None, description="of the weights that stay; by default as the pruner leaves them"
    )
    permute: bool = Field(False, description="order the inputs of each linear so that n:m keeps more")
    low_rank: LowRankChoice | None = Field(None, description="two factors beside the zeros, or in place of weights")
    reconstruct: TunerChoice | None = Field(None, description="tune each block once it is pruned")
    allocation: AllocationChoice = ALLOCATION_CHOICES["uniform"](method="uniform")
    order: Literal["block", "group"] = "block"
    modules: Names = Field(ALL, description="the linears, such as down_proj or mlp.*; by default all")

    @model_validator(mode="after")
    def _every_option_is_used(self) -> Self:
        recipe = self.recipe()  # raises for options that contradict each other
        self._check_allocation(recipe)
        if isinstance(recipe.pruner, SparseGPT) and getattr(recipe.pattern, "within", "row") == "matrix":
            raise ValueError(f"pattern: {self.pattern} given, but sparsegpt compares within blocks of columns; use 50%")
        if self.reconstruct is not None and self.samples < 2:
            raise ValueError("samples: 1 given, but to reconstruct one is needed to train on and one to hold out")
        if self.recover_tokens and self.low_rank is not None:
            raise ValueError(
                "low_rank: recover_tokens given too, but two factors would not follow a training; give one"
            )
        return self

    def _check_allocation(self, recipe: Recipe) -> None:
        """The allocation can divide the pattern, and of a search every option changes something."""
        made = self.allocation.build()
        if isinstance(made, Allocator):
            made.check(recipe.pattern)
            return
        if recipe.pruner is None:
            raise ValueError(f"allocation: {self.allocation} searches by the scores of a pruner, none given; give one")
        if self.modules != ALL:
            given = f"modules: {', '.join(self.modules)} given"
            raise ValueError(
                f"{given}, but {self.allocation.method} divides the linears of whole blocks; leave one out"
            )
        for name in ("flops", "bytes", "peak", "kv"):
            if getattr(made, name, 0):
                said = f"{name} given for zeros, which save as much of it wherever they are"
                raise ValueError(f"allocation: {said}; valid is {name}=0")

    @property
    def search(self) -> Choice | None:
        return self.allocation if self.allocation.method in SEARCHER_CHOICES else None

    def recipe(self) -> Recipe:
        return Recipe(
            pruner=None if self.pruner is None else self.pruner.build(),
            pattern=parse_pattern(self.pattern),
            update=None if self.update is None else self.update.build(),
            permute=self.permute,
            low_rank=None if self.low_rank is None else self.low_rank.build(),
            reconstruct=None if self.reconstruct is None else self.reconstruct.build(),
            order=self.order,
            modules=self.modules,
        )

    @property
    def name(self) -> str:
        """What the rows call it: the pruner and whatever else changes the result, `sparsegpt+refit+reconstruct`."""
        allocation = self.allocation if self.allocation.method != "uniform" else None
        parts = [self.pruner, self.update, self.low_rank, self.reconstruct, allocation]
        names = [part.label for part in parts if part is not None]
        names += [word for word, given in (("permute", self.permute), ("group", self.order == "group")) if given]
        of_some = "" if self.modules == ALL else f" on {', '.join(self.modules)}"
        return "+".join([*names, *self.recovery_label()]) + of_some

    def command(self) -> str:
        """The command line that repeats this run."""
        words = ["espalier", "oneshot", "--model", self.model, "--pruner", str(self.pruner or "none")]
        for name in ("pattern", "calibration", "evaluation"):
            words += [f"--{name}", getattr(self, name)]
        for word, choice in (("--update", self.update), ("--low-rank", self.low_rank)):
            words += [word, str(choice)] if choice is not None else []
        words += ["--permute"] if self.permute else []
        words += ["--reconstruct", *str(self.reconstruct).split(",", 1)[1:]] if self.reconstruct is not None else []
        words += [] if self.modules == ALL else ["--modules", ",".join(self.modules)]
        words += allocation_words(self.allocation) + self.search_words() + self.recovery_words()
        words += self._changed("samples", "window", "sampling", "order", "seed", "device")
        return shlex.join(words if self.speed else [*words, "--no-speed"])


class Slice(Searching):
    """One run of the flow `slice`: a model, how much of its blocks goes, in which units, chosen by what, two texts."""

    budget: float = Field(0.3, gt=0, lt=1, description="the share of the cost of the blocks that goes")
    cost: Literal["parameters", "flops", "bytes", "kv"] = Field(
        "parameters", description="what the budget is a share of; flops and kv at the model's context, 2048 at most"
    )
    importance: ImportanceChoice = USUAL_IMPORTANCE
    allocator: Shared = Field("uniform", description="the same share of every block, that of each, or a search")
    units: Names = Field(("head_groups", "channels"), description="of units that go; or whole: blocks, attention, ffn")
    round_to: int = Field(64, ge=1, description="the channels that stay are a multiple of it")
    repair: bool = Field(True, description="fit the linears that read what was cut to what is left, by least squares")
    measure_units: int = Field(0, ge=0, description="measure the loss without so many units of each kind")
    export: Literal["uniform", "padded", "per_layer"] | None = Field(
        None, description="by default the first of uniform, per_layer and padded that can express the cut"
    )

    @model_validator(mode="after")
    def _every_option_is_used(self) -> Self:
        cut, unscored = self.cut(), set(self.units) - set(kinds_scored(self.importance.build()))
        if unscored:
            able = [name for name, kind in IMPORTANCES.items() if {*self.units} <= {*kinds_scored(kind())}]
            given = f"importance: {self.importance} gives no scores of {', '.join(sorted(unscored))}"
            raise ValueError(f"{given}; valid is {', '.join(able)}")
        pieces = " and ".join(self.units)
        if cut.in_depth and not self.repair:
            raise ValueError(f"repair: of whole {pieces} nothing is left to repair; leave --no-repair out")
        if cut.in_depth and self.round_to != type(self).model_fields["round_to"].default:
            raise ValueError(f"round_to: whole {pieces} have no width to round; leave it out")
        if self.repair and not cut.in_depth and self.samples < 2:
            raise ValueError("samples: 1 given, but to repair one is needed to fit to and one to hold out")
        if self.search is not None and self.export == "uniform":
            raise ValueError("export: uniform given, but a search makes blocks differ; valid is padded or per_layer")
        if self.search is not None and cut.in_depth:
            given = f"allocator: {self.allocator} given for whole {pieces}"
            raise ValueError(f"{given}, of which none is cut; leave it out")
        if 0 < self.measure_units < LEAST:
            raise ValueError(f"measure_units: {self.measure_units} given, valid is 0, or {LEAST} or more")
        return self

    def cut(self) -> Cut:
        return Cut(
            budget=self.budget,
            cost=self.cost,
            shares=self.allocator if isinstance(self.allocator, tuple) else None,
            kinds=self.units,
            round_to=self.round_to,
            repair=self.repair,
            form=self.export,
        )

    @property
    def name(self) -> str:
        """What the rows call it: how units were chosen and what was done for those that stay, `wanda_sp+repair`."""
        repaired = ["repair"] if self.repair and not self.cut().in_depth else []
        return "+".join([self.importance.label, *self._shares_label(), *repaired, *self.recovery_label()])

    @property
    def pattern(self) -> str:
        """`-30%` of the blocks' parameters, `-30%flops`; where not in the usual units, `-30%@channels`."""
        usual = self.units == type(self).model_fields["units"].default
        cost = "" if self.cost == "parameters" else self.cost
        return f"-{100 * self.budget:g}%{cost}" + ("" if usual else f"@{'+'.join(self.units)}")

    @property
    def search(self) -> Choice | None:
        return self.allocator if isinstance(self.allocator, Choice) else None

    def _shares_label(self) -> list[str]:
        """A search is named, and shares of each block are, many of them by their SHA-256."""
        if not isinstance(self.allocator, tuple):
            return [] if self.search is None else [self.search.label]
        said = f"shares={'+'.join(f'{share:g}' for share in self.allocator)}"
        return [said if len(said) <= LONGEST_LABEL else f"shares:{sha256(said.encode()).hexdigest()[:6]}"]

    def command(self) -> str:
        """The command line that repeats this run."""
        words = ["espalier", "slice"]
        for name in ("model", "calibration", "evaluation", "budget", "importance"):
            words += [f"--{name}", str(getattr(self, name))]
        if self.units != type(self).model_fields["units"].default:
            words += ["--units", ",".join(self.units)]
        if self.allocator != "uniform":
            given = str([*self.allocator]) if isinstance(self.allocator, tuple) else str(self.allocator)
            words += ["--allocator", given]
        words += [] if self.repair else ["--no-repair"]
        words += self._changed("cost", "round_to", "measure_units", "export") + self.recovery_words()
        words += self.search_words() + self._changed("samples", "window", "sampling", "seed", "device")
        return shlex.join(words if self.speed else [*words, "--no-speed"])


def kinds_scored(importance: Importance) -> tuple[str, ...]:
    """The kinds of units of which it gives scores."""
    return importance.kinds if isinstance(importance, ImportanceByKind) else KINDS


class Sweep(Strict):
    """One run of the flow `sweep`: the points of a grid, in order."""

    name: str
    points: tuple[Oneshot | Slice | Activation, ...]
