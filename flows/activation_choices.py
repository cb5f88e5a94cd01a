"""What the flow `activation` is told: a model, which inputs its linears read and what makes up for the others."""

import shlex
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from flows.methods import (
    ALLOCATION_CHOICES,
    SEARCHER_CHOICES,
    Choice,
    PatternText,
    allocation_words,
    choices_of,
    parse_allocation,
    parse_choice,
)
from flows.texts import OfTexts
from tasks.data.sources import parse_source
from tasks.model.modules import ALL
from tasks.prune import MITIGATIONS, SELECTIONS
from tasks.prune.activation.learn import Learn
from tasks.prune.activation.recipe import ActivationRecipe
from tasks.prune.activation.results import NamedRecipe
from tasks.prune.activation.sparse_input import Prefill
from tasks.prune.allocators import Given
from tasks.prune.weight.pattern import Unstructured, parse_pattern

SELECTION_CHOICES = choices_of(SELECTIONS)
MITIGATION_CHOICES = choices_of(MITIGATIONS)
LEARN_CHOICES = choices_of({"learn": Learn})
DIVISION_CHOICES = {name: choice for name, choice in ALLOCATION_CHOICES.items() if name not in SEARCHER_CHOICES}
if TYPE_CHECKING:
    SelectionChoice = Choice
    MitigationChoice = Choice
    LearnChoice = Choice
    DivisionChoice = Choice
else:
    SelectionChoice = Annotated[reduce(or_, SELECTION_CHOICES.values()), Field(discriminator="method")]
    MitigationChoice = Annotated[reduce(or_, MITIGATION_CHOICES.values()), Field(discriminator="method")]
    LearnChoice = LEARN_CHOICES["learn"]
    DivisionChoice = Annotated[reduce(or_, DIVISION_CHOICES.values()), Field(discriminator="method")]


class Activation(OfTexts):
    """One run of the flow `activation`."""

    selection: SelectionChoice
    pattern: PatternText = "50%"
    mitigation: tuple[MitigationChoice, ...] = Field((), description="each makes up for what is not read")
    modules: tuple[str, ...] = Field(ALL, description="the linears, such as down_proj or mlp.*; by default all")
    prefill: Prefill = Field("sparse", description="how a prompt is timed; the score is always of sparse tokens")
    allocation: DivisionChoice = DIVISION_CHOICES["uniform"](method="uniform")
    greedy: float | None = Field(
        None, gt=0, le=1, description="divide a block's share among its inputs by such steps, such as 0.05"
    )
    learn: LearnChoice | None = Field(None, description="how mitigations that learn are trained")

    @model_validator(mode="after")
    def _every_option_is_used(self) -> Self:
        recipe = self.recipe()  # raises for options that contradict each other
        if not recipe.pattern.sparsity:
            raise ValueError(
                f"pattern: {self.pattern} keeps every input, so nothing changes; valid is 50%, 2:4 and such"
            )
        if self.greedy is not None and not isinstance(recipe.pattern, Unstructured):
            raise ValueError(f"greedy: it divides a share such as 50%, {self.pattern} was given; leave it out")
        allocator = self.allocation.build()
        allocator.check(recipe.pattern)
        if self.greedy is not None and isinstance(allocator, Given) and allocator.ffn is not None:
            raise ValueError("greedy: it divides a block's share itself, attention and FFN apart were given; give one")
        if self.prefill == "dense" and not self.speed:
            raise ValueError("prefill: the score is of sparse tokens and nothing is timed; leave it or --no-speed out")
        if self.learn is not None and not recipe.learns:
            able = ", ".join(name for name, kind in MITIGATIONS.items() if kind.learns)
            raise ValueError(f"learn: nothing that was given learns; add a mitigation of {able}, or leave it out")
        if recipe.learns and parse_source(self.calibration).overlaps(parse_source(self.evaluation)):
            given = f"calibration: {self.calibration} is learned on and has rows of the evaluation, {self.evaluation}"
            raise ValueError(f"{given}; give it rows of its own")
        if recipe.learns and self.samples < 2:
            raise ValueError("samples: 1 given, but to learn one is needed to train on and one to hold out")
        return self

    def recipe(self) -> ActivationRecipe:
        return ActivationRecipe(
            selection=self.selection.build(),
            pattern=parse_pattern(self.pattern),
            mitigations=tuple(each.build() for each in self.mitigation),
            modules=self.modules,
            prefill=self.prefill,
        )

    def how(self) -> NamedRecipe:
        return NamedRecipe(
            recipe=self.recipe(), names=tuple(each.method for each in (self.selection, *self.mitigation))
        )

    def learning(self) -> Learn | None:
        """How it trains; None where nothing learns."""
        if not self.recipe().learns:
            return None
        return Learn() if self.learn is None else self.learn.build()

    @property
    def name(self) -> str:
        """What the rows call it: `threshold+greedy+var`; of some linears alone `topk on down_proj`."""
        greedy = [] if self.greedy is None else [f"greedy,step={self.greedy:g}"]
        trained = [] if self.learn is None else [self.learn.label]
        dense = ["dense prefill"] if self.prefill == "dense" else []
        divided = [] if self.allocation.method == "uniform" else [self.allocation.label]
        parts = [self.selection.label, *divided, *greedy, *(each.label for each in self.mitigation), *trained, *dense]
        return "+".join(parts) + ("" if self.modules == ALL else f" on {', '.join(self.modules)}")

    def command(self) -> str:
        """The command line that repeats this run."""
        words = ["espalier", "activation", "--model", self.model, "--selection", str(self.selection)]
        words += ["--pattern", self.pattern, "--calibration", self.calibration, "--evaluation", self.evaluation]
        words += ["--mitigation", "+".join(map(str, self.mitigation))] if self.mitigation else []
        words += [] if self.modules == ALL else ["--modules", ",".join(self.modules)]
        words += allocation_words(self.allocation) + self._changed("prefill", "greedy")
        words += ["--learn", *str(self.learn).split(",", 1)[1:]] if self.learn is not None else []
        words += self._changed("samples", "window", "sampling", "seed", "device")
        return shlex.join(words if self.speed else [*words, "--no-speed"])


def activation_of(words: Mapping[str, Any]) -> Activation:
    """The words of `espalier activation` as the parameters of its flow. ValueError in one line."""
    taken = {name: value for name, value in words.items() if name in Activation.model_fields}
    taken["selection"] = parse_selection(words["selection"])
    taken["mitigation"] = parse_mitigations(words["mitigation"])
    taken["modules"] = tuple(filter(None, words["modules"].split(",")))
    taken["allocation"] = parse_allocation(words["allocation"], DIVISION_CHOICES)
    taken["learn"] = None if words["learn"] is None else parse_learn(words["learn"])
    return Activation.parse(**taken)


def parse_selection(text: str) -> Choice:
    """`topk`, `nm`, `threshold`, `clact`, `amber`, `weight_variance`."""
    return parse_choice("selection", text, SELECTION_CHOICES)


def parse_mitigations(text: str) -> Sequence[Choice]:
    """`none`, or several in their order: `var+dpts,centre=median`."""
    if text == "none":
        return ()
    if "none" in text.split("+"):
        raise ValueError(f"mitigation: {text} given, none beside others; leave it out")
    return tuple(parse_choice("mitigation", each, MITIGATION_CHOICES, beside=("none",)) for each in text.split("+"))


def parse_learn(text: str) -> Choice:
    """The hyper-parameters alone: `rate=0.001,epochs=10`, or nothing."""
    return parse_choice("learn", ",".join(["learn", *text.split()]), LEARN_CHOICES)
