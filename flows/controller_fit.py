"""What the flow `controller` checks before any work: the model, the profiles, the actions, the prompts."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flows.controller_choices import Controller
from flows.prepare import PreparedProfiles, prepare_profiles
from tasks.data.prompts import identify_prompts
from tasks.model.load import context_of, load_config, load_tokenizer
from tasks.train_controller.act.actions import Action
from tasks.train_controller.measure.encoded import check_prompts
from tasks.train_controller.task import read_encoded


@dataclass(frozen=True, kw_only=True)
class PreparedController(PreparedProfiles):
    """A `Controller` with everything looked up. `identity`: what the prompts depend on."""

    actions: tuple[Action, ...]
    identity: str


def prepare_controller(parameters: Controller) -> PreparedController:
    """Look up and check everything that a run names. Raises ValueError in one line; nothing is measured."""
    found = prepare_profiles(parameters.making())
    actions = parameters.actions_of([str(cut) for cut in found.cuts])
    identity = identify_prompts(parameters.prompts)
    limit, seed, tokens = parameters.prompt_limit, parameters.seed, parameters.tokens
    _check_prompts(found.model.hash, identity, Path(found.model.folder), parameters.prompts, limit, seed, tokens)
    return PreparedController(**vars(found), actions=actions, identity=identity)


@cache
def _check_prompts(
    content: str, identity: str, folder: Path, source: str, limit: int | None, seed: int, tokens: int
) -> None:
    """Once for every `content` of a model and `identity` of the prompts."""
    prompts, _ = read_encoded(source, load_tokenizer(folder), limit=limit, seed=seed, tokens=tokens)
    check_prompts(prompts, context_of(load_config(folder)), tokens)
