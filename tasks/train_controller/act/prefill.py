"""The one reading of a prompt that everything shares: by the uncut model, before it is known what will decode.

Axes: T tokens of the prompt, L the last of them, V words, D width of the model; queries are (1, query heads, last
tokens, width of a head).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

from tasks.evaluate.speed import now
from tasks.model.anatomy import find_blocks
from tasks.model.load import vocabulary_of
from tasks.model.mode import evaluating
from tasks.prune.cache.budget import KVBudget
from tasks.prune.cache.kept_layer import within_budget
from tasks.prune.cache.queries import watching_queries
from tasks.prune.structure.cut_cache import cut_cache
from tasks.prune.structure.profiles import NONE, Profiles
from tasks.train_controller.act.actions import Action

LOOKED_AT = 1 << 17  # numbers of the logits, and of the states, that are looked at, so that a decision stays quick
LEAST = 8  # tokens that are looked at, however many words there are


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefill:
    """What the uncut model has made of a prompt; `queries` by the slot of the cache, None where no budget needs any.

    Logits are computed for the last tokens alone, as many as are looked at and one more: of a long prompt those of all
    would take more time and memory than the blocks.
    """

    ids_1T: Tensor
    logits_LV: Tensor  # float32
    cache: Cache
    queries: Mapping[int, Tensor] | None
    first_block_in_TD: Tensor
    first_block_out_TD: Tensor
    prefill_ms: float


def prefill(profiles: Profiles, ids_1T: Tensor, *, budgets: Iterable[KVBudget] = ()) -> Prefill:
    """Read a prompt with the uncut model; the profile in force stays. `budgets`: those that `cache_for` may be asked.

    Raises ValueError for ids that are not one row of tokens.
    """
    if ids_1T.dim() != 2 or len(ids_1T) != 1 or ids_1T.shape[1] == 0:
        raise ValueError(f"prompt: ids of shape {tuple(ids_1T.shape)} given, valid is (1, tokens), one token at least")
    observed = max((budget.observed for budget in budgets), default=0)
    queries: dict[int, Tensor] = {}
    with profiles.using(NONE) as model, evaluating(model), torch.inference_mode():
        ids_1T = ids_1T.to(model.device)
        cache = DynamicCache(config=model.config)
        watch = watching_queries(model, observed, queries.__setitem__) if observed else nullcontext()
        kept = rows_of(vocabulary_of(model.config)) + 1
        started = now(model)
        with watch, _first_block(model) as states:
            logits_1LV = model(ids_1T, past_key_values=cache, use_cache=True, logits_to_keep=kept).logits
            prefill_ms = (now(model) - started) * 1000
        (first_block_in_1TD, first_block_out_1TD) = states
        return Prefill(
            ids_1T=ids_1T,
            logits_LV=logits_1LV[0].float(),
            cache=cache,
            queries=queries if observed else None,
            first_block_in_TD=first_block_in_1TD[0],
            first_block_out_TD=first_block_out_1TD[0],
            prefill_ms=prefill_ms,
        )


def rows_of(width: int) -> int:
    """How many tokens are looked at, of rows with so many numbers."""
    return max(LEAST, LOOKED_AT // width)


def read_for(profiles: Profiles, ids_1T: Tensor, actions: Sequence[Action]) -> Prefill:
    """The prefill as the controller has it: what any of the actions needs of it is there, whichever is taken."""
    return prefill(profiles, ids_1T, budgets=[action.budget for action in actions if action.budget is not None])


@torch.inference_mode()
def cache_for(profiles: Profiles, read: Prefill, action: Action) -> Cache:
    """A new cache to go on from `read` with `action.profile` in force, of what the action's budget keeps.

    The prefill stays as it is, for other actions: what is not cut is shared, and to go on writes into none of it.
    Raises ValueError for a profile that is not there, a budget that needs queries and that the prefill was not told
    of, and a budget on a model with sliding windows.
    """
    whole = read.cache if action.budget is None else within_budget(read.cache, action.budget, read.queries)
    return cut_cache(profiles, action.profile, whole)


def cache_bytes(cache: Cache) -> int:
    """Bytes of the keys and values that a cache holds."""
    layers = [layer for layer in cache.layers if isinstance(layer, CacheLayerMixin)]
    return sum(each.nbytes for layer in layers for each in (layer.keys, layer.values) if each is not None)


@contextmanager
def _first_block(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Within, the list gets what the first block reads and what it gives."""
    states: list[Tensor] = []
    first = find_blocks(model)[1][0]

    def see(_: object, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        states.extend([inputs[0], output[0] if isinstance(output, tuple) else output])

    hook = first.register_forward_hook(see)
    try:
        yield states
    finally:
        hook.remove()
