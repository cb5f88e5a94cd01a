"""What the controller can do for a prompt: decode with a profile of the model, keep a part of the prompt's cache."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.prune.cache.budget import KVBudget
from tasks.prune.cache.methods import parse_budget
from tasks.prune.structure.profiles import NONE


@dataclass(frozen=True, kw_only=True)
class Action:
    """A named cut of the model, and what stays of the prompt's keys and values; "none" is the model as it is."""

    profile: str = NONE
    budget: KVBudget | None = None  # None: all of it

    def __str__(self) -> str:
        """`none`, `ffn20`, `none@window:0.5`, `ffn20@snapkv:0.25`; `parse_action` reads it back."""
        return self.profile if self.budget is None else f"{self.profile}@{self.budget}"


def parse_action(text: str) -> Action:
    """Raises ValueError for an empty text, and for a budget that is none."""
    profile, at, budget = text.strip().partition("@")
    if not profile:
        raise ValueError(f"actions: {text!r} given, valid is none or a profile, also with a budget: ffn20@window:0.5")
    return Action(profile=profile, budget=parse_budget(budget) if at else None)


def parse_actions(texts: Sequence[str], profiles: Sequence[str]) -> tuple[Action, ...]:
    """These actions, "none" first whether it is named or not.

    Raises ValueError for a profile that is not among `profiles`, and for an action that is given twice.
    """
    actions = [Action()]
    for text in texts:
        action = parse_action(text)
        if action.profile not in (NONE, *profiles):
            raise ValueError(f"actions: {text!r} given, valid profiles are {', '.join((NONE, *profiles))}")
        if action in actions and str(action) != NONE:
            raise ValueError(f"actions: {text!r} given twice, valid is each action once")
        if action not in actions:
            actions.append(action)
    return tuple(actions)
