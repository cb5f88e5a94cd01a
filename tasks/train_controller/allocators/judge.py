"""The judge of real models: parts lose their rungs in one resident model, which then reads windows of text.

Losses are kept by content, so that nothing is measured twice, in this search or in another one that is told of them.
What is looked at for the first time in a search is counted against its limit all the same: a search takes the same way
whether or not somebody has gone it before.

Axes: W windows, B windows of a batch, T tokens of a window, V vocabulary.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.calibrate.batches import BATCH_TOKENS
from tasks.model.mode import evaluating
from tasks.train_controller.allocators.problem import Levels, Problem
from tasks.train_controller.allocators.search import Judge, Spent

LOOKS = 64  # that a search is to have at least, before it looks at more windows each time
LEAST, MOST = 4, 64  # windows of a look
LOGITS_AT_ONCE = 2**25  # elements, 128 MiB in float32

Losses = tuple[float, ...]  # nats per token of each window


class Rungs(ABC):
    """A model whose parts can lose rungs and get them back."""

    model: PreTrainedModel
    problem: Problem

    @abstractmethod
    def share(self, place: int, rungs: int) -> float:
        """Of the units or weights of the part at this place among the parts, how much goes with so many rungs."""

    @abstractmethod
    def applied(self, levels: Levels) -> AbstractContextManager[None]:
        """Within, the model computes what it would without these rungs; behind, it is to the bit what it was."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Token ids (W, T): those that a search may look at, and others that judge what it has found."""

    search_WT: Tensor
    held_out_WT: Tensor

    @property
    def tokens(self) -> int:
        """Of one look."""
        return self.search_WT.numel()


def divided(ids_WT: Tensor, tokens: int) -> Windows:
    """Every other window to search on, the ones between to hold out: few enough that `tokens` pay for many looks.

    Raises ValueError for fewer than two windows, for windows of a single token, and for tokens below those of one look.
    """
    search, held_out = divided_sizes(len(ids_WT), ids_WT.shape[1], tokens)
    return Windows(search_WT=ids_WT[0::2][:search], held_out_WT=ids_WT[1::2][:held_out])


def divided_sizes(windows: int, length: int, tokens: int) -> tuple[int, int]:
    """How many of these windows of `length` tokens are searched on, and how many are held out. Raises as `divided`."""
    if windows < 2 or length < 2:
        given = f"{windows} windows of {length} tokens"
        raise ValueError(f"samples: {given} given, a search needs 2 windows of 2 tokens: one to look at, one held out")
    count = min(max(tokens // (LOOKS * length), LEAST), MOST, -(-windows // 2))
    if tokens < count * length:
        raise ValueError(f"allocator_tokens: {tokens} given, valid is {count * length} or more, which one look takes")
    return count, min(windows // 2, MOST)


class ModelJudge(Judge):
    """`limit`: the tokens a search may look at. `known`: losses measured before, by `key_of`; new ones are put there.

    `forwards` counts the looks, of either kind, that took the model; `hits` those that were known.
    """

    def __init__(
        self, rungs: Rungs, windows: Windows, limit: int, known: MutableMapping[str, Losses] | None = None
    ) -> None:
        self.rungs, self.windows, self.limit = rungs, windows, limit
        self.known = {} if known is None else known
        self.forwards = self.hits = 0
        self._seen: set[Levels] = set()

    @property
    def tokens(self) -> int:
        return len(self._seen) * self.windows.tokens

    @property
    def looks_left(self) -> int:
        return (self.limit - self.tokens) // self.windows.tokens

    def search_losses(self, levels: Levels) -> Losses:
        if levels not in self._seen:
            if not self.looks_left:
                raise Spent(f"{self.tokens} tokens looked at, the limit is {self.limit}")
            self._seen.add(levels)
        return self.final_losses(levels)

    def final_losses(self, levels: Levels) -> Losses:
        """Of what a search has ended with, on its windows: not counted, and never refused."""
        return self._losses("search", self.windows.search_WT, levels)

    def held_out_losses(self, levels: Levels) -> Losses:
        return self._losses("held out", self.windows.held_out_WT, levels)

    def _losses(self, role: str, ids_WT: Tensor, levels: Levels) -> Losses:
        key = key_of(role, levels)
        if key in self.known:
            self.hits += 1
        else:
            self.forwards += 1
            with self.rungs.applied(levels):
                self.known[key] = window_losses(self.rungs.model, ids_WT)
        return tuple(self.known[key])


def key_of(role: str, levels: Levels) -> str:
    """What a loss is known by: `search 0,3,1`."""
    return f"{role} {','.join(map(str, levels))}"


@torch.no_grad()
def window_losses(model: PreTrainedModel, ids_WT: Tensor) -> Losses:
    """Nats per token of each window, in which every token but the first is scored; infinity for what is no number."""
    tokens = ids_WT.shape[1]
    of_logits = LOGITS_AT_ONCE // (tokens * model.config.get_text_config().vocab_size)
    at_once = max(1, min(of_logits, BATCH_TOKENS[model.device.type] // tokens))
    with evaluating(model):
        losses = torch.cat([_losses_of(model, ids_BT.to(model.device)) for ids_BT in ids_WT.split(at_once)])
    return tuple(loss if math.isfinite(loss) else math.inf for loss in losses.tolist())


def _losses_of(model: PreTrainedModel, ids_BT: Tensor) -> Tensor:
    logits_BVT = model(ids_BT, use_cache=False).logits[:, :-1].float().transpose(1, 2)
    return nn.functional.cross_entropy(logits_BVT, ids_BT[:, 1:], reduction="none").double().mean(1)
