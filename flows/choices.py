"""What a flow's parameters may be, built from the registries: a misspelt method or field fails before anything runs.

The same types serve the command line, the presets and the form in Prefect's interface.
"""

import shlex
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from tasks.data.sources import parse_source
from tasks.prune import ALLOCATIONS, PRUNERS, UPDATES
from tasks.prune.allocators import Given, from_file, from_text
from tasks.prune.own import load_pruner
from tasks.prune.weight.lowrank import LowRank
from tasks.prune.weight.pattern import parse_pattern
from tasks.prune.weight.pruner import Pruner
from tasks.prune.weight.recipe import Recipe
from tasks.prune.weight.reconstruct import Reconstruct


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Choice(Strict):
    """A class of a registry by name with its hyper-parameters; `build` makes the object itself."""

    method: str

    _class: ClassVar[type]

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        self.build()  # it checks the values of its hyper-parameters
        return self

    def build(self) -> Any:
        return self._class(**self.model_dump(exclude={"method"}))

    @property
    def label(self) -> str:
        """What rows and pages call it."""
        return str(self)

    def __str__(self) -> str:
        changed = self.model_dump(exclude={"method"}, exclude_defaults=True)
        return ",".join([self.method, *(f"{name}={value}" for name, value in changed.items())])


def _choices_of(registry: Mapping[str, type]) -> dict[str, type[Choice]]:
    return {name: _choice_of(name, kind) for name, kind in registry.items()}


def _choice_of(name: str, kind: type) -> type[Choice]:
    hints = get_type_hints(kind)
    members: dict[str, Any] = {
        field.name: (hints[field.name], ... if field.default is MISSING else field.default) for field in fields(kind)
    }
    members["method"] = (Literal[name], name)
    made = create_model(f"{kind.__name__}Choice", __base__=Choice, __doc__=kind.__doc__, **members)
    made._class = kind
    return made


class OwnPruner(Choice):
    """A pruner of one's own: a class in a Python file, `mine.py:Class`, with its hyper-parameters."""

    method: Literal["own"] = "own"
    file: str
    name: str
    options: dict[str, str] = {}

    def build(self) -> Pruner:
        kind = load_pruner(self.file, self.name)
        return _choice_of(self.name, kind)(**self.options).build()

    @property
    def label(self) -> str:
        return str(self).removeprefix(f"{Path(self.file).parent}/")

    def __str__(self) -> str:
        return ",".join([f"{self.file}:{self.name}", *(f"{name}={value}" for name, value in self.options.items())])


PRUNER_CHOICES = _choices_of(PRUNERS)
UPDATE_CHOICES = _choices_of(UPDATES)
LOW_RANK_CHOICES = _choices_of({"low_rank": LowRank})
TUNER_CHOICES = _choices_of({"reconstruct": Reconstruct})
ALLOCATION_CHOICES = _choices_of({**ALLOCATIONS, "given": Given})
if TYPE_CHECKING:
    PrunerChoice = Choice
    UpdateChoice = Choice
    LowRankChoice = Choice
    TunerChoice = Choice
    AllocationChoice = Choice
else:
    PrunerChoice = Annotated[reduce(or_, [*PRUNER_CHOICES.values(), OwnPruner]), Field(discriminator="method")]
    UpdateChoice = Annotated[reduce(or_, UPDATE_CHOICES.values()), Field(discriminator="method")]
    LowRankChoice = LOW_RANK_CHOICES["low_rank"]
    TunerChoice = TUNER_CHOICES["reconstruct"]
    AllocationChoice = Annotated[reduce(or_, ALLOCATION_CHOICES.values()), Field(discriminator="method")]
PatternText = Annotated[str, AfterValidator(lambda text: str(parse_pattern(text)))]
SourceText = Annotated[str, AfterValidator(lambda text: str(parse_source(text)))]


def parse_pruner(text: str) -> Choice:
    """`sparsegpt`, `sparsegpt,damp=0.02,block=64`, `mine.py:Class,power=2`. ValueError names what is valid."""
    place, *pairs = text.split(",")
    file, colon, name = place.rpartition(":")
    if not colon:
        return _parse("pruner", text, PRUNER_CHOICES)
    own = _parse("pruner", ",".join([name, *pairs]), {name: _choice_of(name, load_pruner(file, name))})
    options = {key: str(value) for key, value in own.model_dump(exclude={"method"}, exclude_defaults=True).items()}
    return OwnPruner(file=file, name=name, options=options)


def parse_update(text: str) -> Choice:
    """`none`, `sweep`, `refit` or `refit,drift=0.5`."""
    return _parse("update", text, UPDATE_CHOICES)


def parse_reconstruct(text: str) -> Choice:
    """The hyper-parameters alone: `epochs=10,rate=0.001`, or nothing."""
    return _parse("reconstruct", f"reconstruct,{text}" if text else "reconstruct", TUNER_CHOICES)


def parse_low_rank(text: str) -> Choice:
    """The share of the bytes that goes to the factors: `0.25`, or `0.25,rounds=40`."""
    return _parse("low_rank", f"low_rank,share={text}", LOW_RANK_CHOICES)


def parse_allocation(text: str) -> Choice:
    """`uniform`, `owl`, `owl,spread=0.1`, a JSON list of sparsities such as `[0.4, 0.6]`, or a file with one."""
    if text.partition(",")[0] in ALLOCATIONS:
        return _parse("allocation", text, ALLOCATION_CHOICES)
    given = from_text(text) if text.startswith("[") else from_file(text)
    return ALLOCATION_CHOICES["given"].model_validate({"method": "given", "sparsities": given.sparsities})


def _parse(field: str, text: str, choices: Mapping[str, type[Choice]]) -> Choice:
    name, *pairs = text.split(",")
    if name not in choices:
        raise ValueError(f"{field}: {name!r} is unknown; choose one of {', '.join(choices)}")
    choice = choices[name]
    valid = [known for known in choice.model_fields if known != "method"]
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if key not in valid or not equals:
            takes = ", ".join(f"{known}=…" for known in valid) or "no options"
            raise ValueError(f"{field}: {name} does not know {pair!r}; it takes {takes}")
        values[key] = value
    try:
        return choice(**values)
    except ValidationError as error:
        raise ValueError(f"{field}: {name}: {one_line(error)}") from error


class Oneshot(Strict):
    """One run of the flow `oneshot`: a model, a method, a pattern, two texts."""

    model: str = Field("builtin", description="a folder, a name on the hub, or 'builtin'")
    pruner: PrunerChoice
    pattern: PatternText = "2:4"
    calibration: SourceText = "docs"
    evaluation: SourceText = "docs"
    update: UpdateChoice | None = Field(
        None, description="of the weights that stay; by default as the pruner leaves them"
    )
    permute: bool = Field(False, description="order the inputs of each linear so that n:m keeps more")
    low_rank: LowRankChoice | None = Field(None, description="a share of the bytes for two factors beside the zeros")
    reconstruct: TunerChoice | None = Field(None, description="tune each block once it is pruned")
    allocation: AllocationChoice = ALLOCATION_CHOICES["uniform"](method="uniform")
    samples: int = Field(128, ge=1, description="calibration windows")
    window: int | None = Field(
        None, ge=2, description="tokens a window; by default 2048, or the model's context if shorter"
    )
    sampling: Literal["random", "first"] = "random"
    order: Literal["block", "group"] = "block"
    seed: int = Field(0, ge=0)
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    speed: bool = Field(True, description="measure prefill and decode speed beside the dense model")

    @model_validator(mode="after")
    def _every_option_is_used(self) -> Self:
        self.recipe()  # raises for options that contradict each other
        self.allocation.build().check(parse_pattern(self.pattern))
        return self

    @model_validator(mode="after")
    def _a_seed_draws_something(self) -> Self:
        if self.sampling == "first" and self.seed:
            raise ValueError("seed: sampling takes the first windows, so no seed is drawn from; leave it out")
        return self

    def recipe(self) -> Recipe:
        return Recipe(
            pruner=self.pruner.build(),
            pattern=parse_pattern(self.pattern),
            update=None if self.update is None else self.update.build(),
            permute=self.permute,
            low_rank=None if self.low_rank is None else self.low_rank.build(),
            reconstruct=None if self.reconstruct is None else self.reconstruct.build(),
            order=self.order,
        )

    @property
    def name(self) -> str:
        """What the rows call it: the pruner and whatever else is not the default, `sparsegpt+refit+reconstruct`."""
        allocation = self.allocation if self.allocation.method != "uniform" else None
        parts = [self.pruner, self.update, self.low_rank, self.reconstruct, allocation]
        names = [part.label for part in parts if part is not None]
        return "+".join([*names, "permute"] if self.permute else names)

    def command(self) -> str:
        """The command line that repeats this run."""
        words = ["espalier", "oneshot"]
        for name in ("model", "pruner", "pattern", "calibration", "evaluation"):
            words += [f"--{name}", str(getattr(self, name))]
        if self.update is not None:
            words += ["--update", str(self.update)]
        words += ["--permute"] if self.permute else []
        if self.low_rank is not None:
            share, *others = str(self.low_rank).split(",")[1:] or [str(self.low_rank.build().share)]
            words += ["--low-rank", ",".join([share.removeprefix("share="), *others])]
        if self.reconstruct is not None:
            words += ["--reconstruct", *str(self.reconstruct).split(",", 1)[1:]]
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


def one_line(error: ValidationError) -> str:
    """The first complaint of a validation: `field: what is wrong`."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][:1])
    what = first["msg"].removeprefix("Value error, ")
    return what if not where or what.startswith(f"{where}:") else f"{where}: {what} (given: {first['input']!r})"
