"""An action put into effect, timed: its profile in force and the prompt's cache fitted to it, and all of it undone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from transformers import Cache, DynamicCache, PreTrainedModel

from tasks.evaluate.speed import now
from tasks.prune.cache.kept_layer import check_forgettable
from tasks.prune.structure.profiles import NONE, Profiles
from tasks.train_controller.act.actions import Action
from tasks.train_controller.act.prefill import Prefill, cache_bytes, cache_for


@dataclass(kw_only=True, eq=False)
class Fitted:
    """What can be decoded with: `cache` may be written into, the prompt's own is another."""

    model: PreTrainedModel
    cache: Cache
    cache_bytes: int  # of the prompt's positions
    switch_ms: float  # to put the profile in force and to fit the cache; after the `with`, of the way back too


def check_fits(profiles: Profiles, action: Action) -> None:
    """Raises ValueError for a profile that is not there, and for a budget on a model with sliding windows."""
    if action.profile not in profiles.names:
        raise ValueError(f"action: {action} given, valid profiles are {', '.join(profiles.names)}")
    if action.budget is not None:
        check_forgettable(DynamicCache(config=profiles.model.config))


def check_actions(actions: Sequence[Action], profiles: Profiles) -> None:
    """Raises ValueError for actions that do not begin with "none" or are given twice, and as `check_fits`."""
    names = [str(action) for action in actions]
    if names[:1] != [NONE] or len({*names}) < len(names):
        raise ValueError(f"actions: {', '.join(names)} given, valid is {NONE} first, and each of them once")
    for action in actions:
        check_fits(profiles, action)


@contextmanager
def in_force(profiles: Profiles, read: Prefill, action: Action) -> Iterator[Fitted]:
    """Within, the action's profile is in force; then, whatever happens, the one before. Raises as `cache_for`."""
    started = now(profiles.model)
    with profiles.using(action.profile) as model:
        cache = cache_for(profiles, read, action)
        switch_ms = 1000 * (now(model) - started)
        fitted = Fitted(model=model, cache=cache, cache_bytes=cache_bytes(cache), switch_ms=switch_ms)
        yield fitted
        leaving = now(model)
    fitted.switch_ms += 1000 * (now(profiles.model) - leaving)
