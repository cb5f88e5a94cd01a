"""What the flow `controller` is told: a model, prompts, floors, what may be done for a prompt, and who learns it."""

import re
import shlex
from dataclasses import replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from flows.methods import USUAL_IMPORTANCE, Choice, ImportanceChoice, choices_of, parse_choice
from flows.profile_choices import CutsText, Profiles
from flows.texts import DeviceText, Seed, SourceText, Told
from tasks.prune.structure.profiles import NONE
from tasks.train_controller.act.actions import Action, parse_action, parse_actions
from tasks.train_controller.learn.learner import Learner
from tasks.train_controller.learn.learners import ABLATIONS, LEARNERS, reweighted
from tasks.train_controller.learn.reward import Reward

BOTH = "both"
USUAL_BUDGET = "snapkv:0.5"
BETWEEN_ACTIONS = re.compile(r",(?![a-z_]+=)")  # a comma before `window=` stands inside an action
LEARNER_CHOICES = choices_of(LEARNERS, without=("reward", "target"))  # they are the run's
REWARD_CHOICES = choices_of({"reward": Reward})
if TYPE_CHECKING:
    LearnerChoice = Choice
    RewardChoice = Choice
else:
    RewardChoice = REWARD_CHOICES["reward"]
    LearnerChoice = Annotated[reduce(or_, LEARNER_CHOICES.values()), Field(discriminator="method")]


def _floor(given: float) -> float:
    if not 0 < given <= 1:
        raise ValueError(f"floor: {given:g} given, valid is above 0 and at most 1, such as 0.05 for 5 %")
    return given


def _action(text: str) -> str:
    action = parse_action(text)
    if action.budget is not None and action.budget.ratio == 1:
        raise ValueError(f"actions: {text!r} given, which keeps all and so is {action.profile!r}; valid is less than 1")
    return str(action)


def _split(given: Any) -> Any:
    """Words into their parts."""
    return BETWEEN_ACTIONS.split(given) if isinstance(given, str) else given


Floors = Annotated[tuple[Annotated[float, AfterValidator(_floor)], ...], BeforeValidator(_split), Field(min_length=1)]
Actions = Annotated[tuple[Annotated[str, AfterValidator(_action)], ...], BeforeValidator(_split), Field(min_length=1)]
Learners = Annotated[tuple[LearnerChoice, ...], Field(min_length=1)]


class Controller(Told):
    """One run of the flow `controller`."""

    model: str = Field("builtin", description="a folder, a name on the hub, or 'builtin'")
    prompts: str = Field("docs", description="docs, or files of prompts; several joined by +")
    prompt_limit: int | None = Field(None, ge=1, description="so many of them; by default all")
    floor: Floors = Field((0.05,), description="the largest share by which the perplexity of a reference may rise")
    profiles: CutsText | None = Field(None, description="by default those that the actions name, or the usual ones")
    actions: Actions | None = Field(None, description="by default each profile, and half of the cache")
    learner: Learners = Field(tuple(choice(method=name) for name, choice in LEARNER_CHOICES.items()))
    reward: RewardChoice = REWARD_CHOICES["reward"](method="reward")
    target: float = Field(0.005, gt=0, lt=1, description="the share of the prompts on which a floor may be broken")
    seeds: int = Field(5, ge=1, description="so many policies of each learner for each floor")
    ablations: bool = Field(False, description="learn without a part of the state, and with other rewards")
    tokens: int = Field(32, ge=2, description="of an answer, and of a reference at most")
    repetitions: int = Field(4, ge=1, description="of each timing, the actions taking turns")
    importance: ImportanceChoice = USUAL_IMPORTANCE
    round_to: int = Field(64, ge=1, description="the channels that stay are a multiple of it")
    repair: bool = Field(True, description="fit the linears that read what was cut to what is left, by least squares")
    calibration: SourceText = "docs"
    samples: int = Field(128, ge=1, description="calibration windows")
    window: int | None = Field(None, ge=2, description="tokens a calibration window")
    seed: Seed = Field(0, description="of the sampling, and of the split of the prompts")
    device: DeviceText = "auto"
    live: bool = Field(False, description="answer the test prompts, once the policies have learned")

    @model_validator(mode="after")
    def _every_option_is_used(self) -> Self:
        if len(set(self.floor)) < len(self.floor):
            raise ValueError(f"floor: {self.floors_said} given, valid is each floor once")
        if len({choice.method for choice in self.learner}) < len(self.learner):
            raise ValueError(f"learner: {self.name} given, valid is each of {', '.join(LEARNER_CHOICES)} once")
        if self.actions and not any(parse_action(text).profile != NONE for text in self.actions):
            given = ", ".join(self.actions)
            raise ValueError(f"actions: {given} given, none of a profile; valid is at least one, such as ffn20")
        making = self.making()  # raises for options that make no profiles
        if making.profiles is not None:
            parsed = self.actions_of([str(cut) for cut in making.cuts()])
            if idle := {str(cut) for cut in making.cuts()} - {action.profile for action in parsed}:
                raise ValueError(f"profiles: {min(idle)} given, which no action uses; leave it out")
        return self

    def making(self) -> Profiles:
        """How the profiles are made: as the flow `profiles` would, which can find them in the cache then."""
        named = dict.fromkeys(parse_action(text).profile for text in self.actions or ())
        shared = ("model", "importance", "round_to", "repair", "calibration", "samples", "window", "seed", "device")
        return Profiles.parse(
            profiles=self.profiles or ",".join(name for name in named if name != NONE) or None,
            speed=False,
            **{name: getattr(self, name) for name in shared},
        )

    def actions_of(self, profiles: list[str]) -> tuple[Action, ...]:
        """What may be done, "none" first, once it is known which profiles there are. ValueError for other ones."""
        return parse_actions(self.actions or [*profiles, f"{NONE}@{USUAL_BUDGET}"], profiles)

    def learners(self) -> list[tuple[str, Learner, tuple[str, ...]]]:
        """What rows call each, how it learns, and the features that it does without."""
        reward = self.reward.build()
        own = [(choice.method, replace(choice.build(), reward=reward, target=self.target)) for choice in self.learner]
        ways: list[tuple[str, Learner, tuple[str, ...]]] = [(name, learner, ()) for name, learner in own]
        if not self.ablations:
            return ways
        for name, learner in own:
            ways += [(f"{name}, {said}", learner, gone) for said, gone in ABLATIONS.items()]
            ways += [(said, other, ()) for said, other in reweighted(learner).items()]
        return ways

    @property
    def name(self) -> str:
        """What the rows call it: who learned."""
        return "+".join(choice.label for choice in self.learner)

    @property
    def floors_said(self) -> str:
        return ",".join(f"{floor:g}" for floor in self.floor)

    @property
    def pattern(self) -> str:
        return f"floor {', '.join(f'{100 * floor:g}%' for floor in self.floor)}"

    def command(self) -> str:
        """The command line that repeats this run."""
        words = ["espalier", "controller", "test" if self.live else "train"]
        for name, value in (("model", self.model), ("prompts", self.prompts), ("floor", self.floors_said)):
            words += [f"--{name}", value]
        words += ["--actions", ",".join(self.actions)] if self.actions else []
        if self.learner != type(self).model_fields["learner"].default:
            words += ["--learner", "+".join(map(str, self.learner))]
        weights = str(self.reward).partition(",")[2]
        words += ["--reward", weights] if weights else []
        words += ["--ablations"] if self.ablations else []
        words += [] if self.repair else ["--no-repair"]
        words += self._changed("profiles", "importance", "round_to", "prompt_limit", "target", "seeds", "tokens")
        return shlex.join(words + self._changed("repetitions", "calibration", "samples", "window", "seed", "device"))


def parse_learners(text: str) -> tuple[Choice, ...]:
    """`dqn`, `bandit`, `both`; of each its hyper-parameters may follow; several are joined: `dqn,passes=8+bandit`."""
    if text == BOTH:
        return tuple(choice(method=name) for name, choice in LEARNER_CHOICES.items())
    return tuple(parse_choice("learner", each, LEARNER_CHOICES, beside=(BOTH,)) for each in text.split("+"))


def parse_reward(text: str) -> Choice:
    """Its weights alone: `quality=3,tolerance=1`, or nothing."""
    return parse_choice("reward", ",".join(["reward", *text.split()]), REWARD_CHOICES)
