"""The judge of real models: parts lose their rungs in one resident model, which then reads windows of text.

Losses are kept by content, so that nothing is measured twice, in this search or in another one that is told of them.
What is looked at for the first time in a search is counted against its limit all the same: a search takes the same way
whether or not somebody has gone it before.

Axes: W windows, T tokens of a window.
"""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tasks.train_controller.allocators.losses import Losses, rung_rises, window_losses
from tasks.train_controller.allocators.problem import Levels
from tasks.train_controller.allocators.rungs import Rungs
from tasks.train_controller.allocators.search import Judge, Rises

LOOKS = 64  # that a search is to have at least, before it looks at more windows each time
LEAST, MOST = 4, 64  # windows of a look


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

    `forwards` counts the looks, of any kind, that took the model; `hits` those that were known.
    """

    def __init__(
        self, rungs: Rungs, windows: Windows, limit: int, known: MutableMapping[str, Losses] | None = None
    ) -> None:
        super().__init__(len(windows.search_WT), windows.search_WT.shape[1], limit)
        self.rungs, self.texts = rungs, windows
        self.known = {} if known is None else known
        self.forwards = self.hits = 0

    def final_losses(self, levels: Levels) -> Losses:
        """Of what a search has ended with, on its windows: not counted, and never refused."""
        return self._losses(levels, None)

    def held_out_losses(self, levels: Levels) -> Losses:
        return self._measured("held out", levels, self.texts.held_out_WT)

    def _losses(self, levels: Levels, fold: int | None) -> Losses:
        return self._measured(f"search{self._of(fold)}", levels, self._ids_WT(fold))

    def _rises(self, levels: Levels, fold: int | None) -> Rises:
        def measured() -> Losses:
            rises = rung_rises(self.rungs, levels, self._ids_WT(fold))
            return (rises.loss, *np.concatenate(rises.parts).tolist())

        loss, *flat = self._once(key_of(f"rises{self._of(fold)}", levels), measured)
        return Rises(loss=loss, parts=np.split(np.array(flat), np.cumsum(self.rungs.problem.rungs)[:-1]))

    def _ids_WT(self, fold: int | None) -> Tensor:
        search_WT = self.texts.search_WT
        return search_WT if fold is None else search_WT[fold :: self.folds]

    def _of(self, fold: int | None) -> str:
        return "" if fold is None else f" fold {fold} of {self.folds}"

    def _measured(self, role: str, levels: Levels, ids_WT: Tensor) -> Losses:
        def measured() -> Losses:
            with self.rungs.applied(levels):
                return window_losses(self.rungs.model, ids_WT)

        return self._once(key_of(role, levels), measured)

    def _once(self, key: str, measured: Callable[[], Losses]) -> Losses:
        if key in self.known:
            self.hits += 1
        else:
            self.forwards += 1
            self.known[key] = measured()
        return tuple(self.known[key])


def key_of(role: str, levels: Levels) -> str:
    """What a loss is known by: `search 0,3,1`."""
    return f"{role} {','.join(map(str, levels))}"
