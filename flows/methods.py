"""The registries as types of a flow's parameters: a misspelt method or field fails before anything runs.

A choice is a class of a registry by name with its hyper-parameters, as words on the command line or as JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from functools import reduce
from hashlib import sha256
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PydanticUserError,
    ValidationError,
    create_model,
    model_validator,
)

from flows.names import BESIDE_PRUNERS, share_of, unknown
from flows.names import USUAL_IMPORTANCE as USUAL
from tasks.calibrate.importance import IMPORTANCES
from tasks.prune import ALLOCATIONS, DECOMPOSERS, PRUNERS, UPDATES
from tasks.prune.allocators import Given, from_file, from_text
from tasks.prune.own import load_pruner
from tasks.prune.weight.pattern import parse_pattern
from tasks.prune.weight.pruner import Pruner
from tasks.prune.weight.reconstruct import Reconstruct
from tasks.train_controller.allocators import SEARCHERS

LONGEST_LABEL = 60  # characters


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
        """What rows and pages call it; a list of a number for each block is named by its SHA-256."""
        said = str(self)
        return said if len(said) <= LONGEST_LABEL else f"{self.method}:{sha256(said.encode()).hexdigest()[:6]}"

    def __str__(self) -> str:
        changed = self.model_dump(exclude={"method"}, exclude_defaults=True)
        return ",".join([self.method, *(f"{name}={_said(value)}" for name, value in changed.items())])


def _split(given: Any) -> Any:
    return given.split("+") if isinstance(given, str) else given


def _said(value: Any) -> Any:
    return "+".join(map(str, value)) if isinstance(value, tuple) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]  # in words q_proj+o_proj
PatternText = Annotated[str, AfterValidator(lambda text: str(parse_pattern(text)))]


def choices_of(registry: Mapping[str, type], without: Sequence[str] = ()) -> dict[str, type[Choice]]:
    """Of each class a choice; its fields in `without` are not to be chosen."""
    return {name: _choice_of(name, kind, without) for name, kind in registry.items()}


def _choice_of(name: str, kind: type, without: Sequence[str] = ()) -> type[Choice]:
    hints = {name: Names if hint == tuple[str, ...] else hint for name, hint in get_type_hints(kind).items()}
    members: dict[str, Any] = {
        field.name: (hints[field.name], ... if field.default is MISSING else field.default)
        for field in fields(kind)
        if field.name not in without
    }
    members["method"] = (Literal[name], name)
    made = create_model(f"{kind.__name__}Choice", __base__=Choice, __doc__=kind.__doc__, **members)
    made._class = kind
    return made


def _choice_of_own(file: str, name: str) -> type[Choice]:
    """ValueError also for a hyper-parameter whose type cannot be said in words, or is no name in the file."""
    kind = load_pruner(file, name)
    try:
        return _choice_of(name, kind)
    except (PydanticUserError, NameError) as error:
        cause = str(error).partition(". ")[0].splitlines()[0]
        raise ValueError(
            f"pruner: {name} in {file} has a hyper-parameter of another type than numbers, bool, str and "
            f"tuple[str, ...] ({cause})"
        ) from error


class OwnPruner(Choice):
    """A pruner of one's own: a class in a Python file, `mine.py:Class`, with its hyper-parameters."""

    method: Literal["own"] = "own"
    file: str
    name: str
    options: dict[str, str] = {}

    def build(self) -> Pruner:
        return _choice_of_own(self.file, self.name)(**self.options).build()

    @property
    def label(self) -> str:
        return str(self).removeprefix(f"{Path(self.file).parent}/")

    def __str__(self) -> str:
        return ",".join([f"{self.file}:{self.name}", *(f"{name}={value}" for name, value in self.options.items())])


PRUNER_CHOICES = choices_of(PRUNERS)
UPDATE_CHOICES = choices_of(UPDATES)
LOW_RANK_CHOICES = choices_of(DECOMPOSERS)
TUNER_CHOICES = choices_of({"reconstruct": Reconstruct})
SEARCHER_CHOICES = choices_of({name: kind for name, kind in SEARCHERS.items() if name != "uniform"})
ALLOCATION_CHOICES = {**choices_of({**ALLOCATIONS, "given": Given}), **SEARCHER_CHOICES}
IMPORTANCE_CHOICES = choices_of(IMPORTANCES)
USUAL_IMPORTANCE = IMPORTANCE_CHOICES[USUAL](method=USUAL)
if TYPE_CHECKING:
    PrunerChoice = Choice
    UpdateChoice = Choice
    LowRankChoice = Choice
    TunerChoice = Choice
    AllocationChoice = Choice
    ImportanceChoice = Choice
else:
    PrunerChoice = Annotated[reduce(or_, [*PRUNER_CHOICES.values(), OwnPruner]), Field(discriminator="method")]
    UpdateChoice = Annotated[reduce(or_, UPDATE_CHOICES.values()), Field(discriminator="method")]
    LowRankChoice = Annotated[reduce(or_, LOW_RANK_CHOICES.values()), Field(discriminator="method")]
    TunerChoice = TUNER_CHOICES["reconstruct"]
    AllocationChoice = Annotated[reduce(or_, ALLOCATION_CHOICES.values()), Field(discriminator="method")]
    ImportanceChoice = Annotated[reduce(or_, IMPORTANCE_CHOICES.values()), Field(discriminator="method")]


def parse_pruner(text: str) -> Choice | None:
    """`sparsegpt`, `sparsegpt,damp=0.02,block=64`, `mine.py:Class,power=2`; `none`. ValueError names what is valid."""
    if text == "none":
        return None
    place, *pairs = text.split(",")
    file, colon, name = place.rpartition(":")
    if not colon:
        return parse_choice("pruner", text, PRUNER_CHOICES, beside=BESIDE_PRUNERS)
    own = parse_choice("pruner", ",".join([name, *pairs]), {name: _choice_of_own(file, name)})
    options = {
        key: str(_said(value)) for key, value in own.model_dump(exclude={"method"}, exclude_defaults=True).items()
    }
    return OwnPruner(file=file, name=name, options=options)


def parse_update(text: str) -> Choice:
    """`none`, `sweep`, `refit` or `refit,drift=0.5`."""
    return parse_choice("update", text, UPDATE_CHOICES)


def parse_reconstruct(text: str) -> Choice:
    """The hyper-parameters alone: `epochs=10,rate=0.001`, or nothing."""
    return parse_choice("reconstruct", ",".join(["reconstruct", *text.split()]), TUNER_CHOICES)


def parse_low_rank(text: str) -> Choice:
    """`svd`, `activation_svd,rank=64,linears=q_proj+o_proj`; or of factors beside zeros the hyper-parameters alone,
    `share=0.25,rounds=40`, or nothing; of the first, `0.25` will do."""
    first = text.partition(",")[0]
    if text[:1].isalpha() and "=" not in first:
        return parse_choice("low_rank", text, LOW_RANK_CHOICES)
    options = [f"share={text}" if "=" not in first else text] if text else []
    return parse_choice("low_rank", ",".join(["low_rank", *options]), LOW_RANK_CHOICES)


def parse_allocation(text: str, choices: Mapping[str, type[Choice]] = ALLOCATION_CHOICES) -> Choice:
    """`uniform`, `owl,spread=0.1`, `rl,updates=40`, JSON of sparsities such as `[0.4, 0.6]`, or a file with that."""
    if text.partition(",")[0] in choices.keys() - {"given"}:
        return parse_choice("allocation", text, choices)
    if text[:1] not in ("[", "{") and not Path(text).is_file():
        valid = f"valid is {', '.join(name for name in choices if name != 'given')}, or a JSON file"
        raise ValueError(f"allocation: {text!r} given, which cannot be read; {valid} such as [0.4, 0.6]")
    given = from_text(text) if text[:1] in ("[", "{") else from_file(text)
    return ALLOCATION_CHOICES["given"].model_validate({"method": "given", **vars(given)})


def allocation_words(allocation: Choice) -> list[str]:
    """What says it on a command line; nothing for the usual one."""
    if isinstance(given := allocation.build(), Given):
        return ["--allocation", given.as_json()]
    return [] if allocation.method == "uniform" else ["--allocation", str(allocation)]


def parse_importance(text: str) -> Choice:
    """`wanda_sp`, `taylor`, `leave_one_out,kinds=channels`."""
    return parse_choice("importance", text, IMPORTANCE_CHOICES)


def parse_choice(field: str, text: str, choices: Mapping[str, type[Choice]], beside: Sequence[str] = ()) -> Choice:
    """`beside` the choices: other words that would have been valid."""
    name, *pairs = text.split(",")
    if name not in choices:
        raise ValueError(f"{field}: {unknown(name, *choices, *beside)}")
    choice = choices[name]
    valid = [known for known in choice.model_fields if known != "method"]
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if key not in valid or not equals:
            takes = ", ".join(f"{known}=…" for known in valid) or "no options"
            raise ValueError(f"{field}: {name} does not know {pair!r}; it takes {takes}")
        if key in values:
            raise ValueError(f"{field}: {name} was given {key} twice, {values[key]!r} and {value!r}; valid is once")
        values[key] = value
    try:
        return choice(**values)
    except ValidationError as error:
        where = field if field == name else f"{field}: {name}"
        raise ValueError(f"{where}: {one_line(error)}") from error


def one_line(error: ValidationError) -> str:
    """The first complaint of a validation: `field: what is wrong`."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][:1])
    what = first["msg"].removeprefix("Value error, ")
    if not where or what.startswith(f"{where}:"):
        return what
    instead = share_of(first["input"]) if first["type"] == "float_parsing" else ""
    return f"{where}: {what} (given: {first['input']!r}{instead})"
