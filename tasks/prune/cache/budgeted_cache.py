"""A cache for `generate` that reads the prompt whole, and then goes on with what a KV budget keeps of it.

Axes: B prompts, Q query heads, T positions, D width of a head.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel

from tasks.prune.cache.budget import KVBudget
from tasks.prune.cache.kept_layer import KeptLayer, check_forgettable
from tasks.prune.cache.queries import watching_queries


@contextmanager
def budgeted_cache(model: PreTrainedModel, budget: KVBudget) -> Iterator[Cache]:
    """An empty cache for `model(…, past_key_values=cache)` and `model.generate(…, past_key_values=cache)` within.

    The first forward is the prompt: it attends to all of itself, and each block's share shrinks as soon as the block
    has read it. What is generated afterwards is appended and stays. Prompts of a batch have one length.

    Raises ValueError for a model with sliding windows, for prompts with padding, and for a family whose queries cannot
    be seen where the budget needs them.
    """
    whole = DynamicCache(config=model.config)
    check_forgettable(whole)
    layers = [BudgetedLayer(budget) for _ in whole.layers]
    cache = Cache(layers=layers)  # type: ignore[arg-type]

    def refuse_padding(_: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        attended = named.get("attention_mask")
        if attended is not None and cache.get_seq_length() == 0 and not attended.all():
            raise ValueError("attention_mask: padding given, valid with a KV budget are prompts of one length")

    with ExitStack() as hooks:
        hooks.callback(model.register_forward_pre_hook(refuse_padding, with_kwargs=True).remove)
        if budget.needs_queries:
            hooks.enter_context(watching_queries(model, budget.observed, lambda slot, query: layers[slot].see(query)))
        yield cache


class BudgetedLayer(KeptLayer):
    """One block's share: whole until the prompt has been read, then what `budget` keeps of it."""

    def __init__(self, budget: KVBudget) -> None:
        super().__init__()
        self.budget, self.fitted = budget, False

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """What the block attends to: all that was held before, and what comes."""
        attended = super().update(key_states, value_states, *args, **named)
        if not self.budget.needs_queries:
            self.see(None)
        return attended

    def see(self, query_BQTD: Tensor | None) -> None:
        """The prompt is held and these are its last queries; later ones change nothing."""
        if not self.fitted:
            self.fit(self.budget, query_BQTD)
            self.fitted = True

    def reset(self) -> None:
        super().reset()
        self.fitted = False
