"""What a flow's parameters may be, built from the registries: a misspelt method or field fails before anything runs.

The same types serve the command line, the presets and the form in Prefect's interface.
"""

import shlex
from dataclasses import fields
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from tasks.data.sources import parse_source
from tasks.prune import PRUNERS
from tasks.prune.weight.pattern import parse_pattern
from tasks.prune.weight.pruner import Pruner


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MethodChoice(Strict):
    """A pruner by name with its hyper-parameters; `build` makes the pruner itself."""

    method: str

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        self.build()  # the pruner checks the values of its hyper-parameters
        return self

    def build(self) -> Pruner:
        return PRUNERS[self.method](**self.model_dump(exclude={"method"}))

    def __str__(self) -> str:
        changed = self.model_dump(exclude={"method"}, exclude_defaults=True)
        return ",".join([self.method, *(f"{name}={value}" for name, value in changed.items())])


def _choice_of(name: str, pruner: type) -> type[MethodChoice]:
    hints = get_type_hints(pruner)
    members: dict[str, Any] = {field.name: (hints[field.name], field.default) for field in fields(pruner)}
    members["method"] = (Literal[name], name)
    return create_model(f"{pruner.__name__}Choice", __base__=MethodChoice, __doc__=pruner.__doc__, **members)


CHOICES: dict[str, type[MethodChoice]] = {name: _choice_of(name, pruner) for name, pruner in PRUNERS.items()}
if TYPE_CHECKING:
    PrunerChoice = MethodChoice
else:
    PrunerChoice = Annotated[reduce(or_, CHOICES.values()), Field(discriminator="method")]
PatternText = Annotated[str, AfterValidator(lambda text: str(parse_pattern(text)))]
SourceText = Annotated[str, AfterValidator(lambda text: str(parse_source(text)))]


def parse_pruner(text: str) -> MethodChoice:
    """`sparsegpt` or `sparsegpt,damp=0.02,block=64`. ValueError names the field and what is valid."""
    name, *pairs = text.split(",")
    if name not in CHOICES:
        raise ValueError(f"pruner: {name!r} is unknown; choose one of {', '.join(CHOICES)}")
    choice = CHOICES[name]
    valid = [field for field in choice.model_fields if field != "method"]
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if key not in valid or not equals:
            takes = ", ".join(f"{field}=…" for field in valid) or "no options"
            raise ValueError(f"pruner: {name} does not know {pair!r}; it takes {takes}")
        values[key] = value
    try:
        return choice(**values)
    except ValidationError as error:
        raise ValueError(f"pruner: {name}: {one_line(error)}") from error


class Oneshot(Strict):
    """One run of the flow `oneshot`: a model, a method, a pattern, two texts."""

    model: str = Field("builtin", description="a folder, a name on the hub, or 'builtin'")
    pruner: PrunerChoice
    pattern: PatternText = "2:4"
    calibration: SourceText = "docs"
    evaluation: SourceText = "docs"
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
        if self.order == "group" and PRUNERS[self.pruner.method].observes is None:
            raise ValueError(
                f"order: {self.pruner.method} observes no inputs, so the order of calibration means nothing"
            )
        return self

    @model_validator(mode="after")
    def _a_seed_draws_something(self) -> Self:
        if self.sampling == "first" and self.seed:
            raise ValueError("seed: sampling takes the first windows, so no seed is drawn from; leave it out")
        return self

    def command(self) -> str:
        """The command line that repeats this run."""
        words = ["espalier", "oneshot"]
        for name in ("model", "pruner", "pattern", "calibration", "evaluation"):
            words += [f"--{name}", str(getattr(self, name))]
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
