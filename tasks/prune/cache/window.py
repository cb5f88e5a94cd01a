"""A sliding window with sinks: the first tokens, which every model attends to, and the latest (arXiv:2309.17453)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tasks.prune.cache.budget import KVBudget


@dataclass(frozen=True, kw_only=True)
class SlidingWindow(KVBudget):
    """The first `sinks` positions, and of the others the latest; one of these at least.

    Positions stay those of the whole text, where the paper counts anew within the cache. Raises ValueError for fewer
    than 0 sinks.
    """

    name: ClassVar[str] = "window"
    sinks: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sinks < 0:
            raise ValueError(f"sinks: {self.sinks} given, valid is 0 or more")

    @property
    def least(self) -> int:
        return self.sinks + 1

    def choose(self, key_BHTD: Tensor, value_BHTD: Tensor, query_BQTD: Tensor | None) -> Tensor:
        prompts, heads, tokens, _ = key_BHTD.shape
        latest = self.count(tokens) - self.sinks
        position_T = torch.arange(tokens, device=key_BHTD.device)
        kept_K = torch.cat([position_T[: self.sinks], position_T[tokens - latest :]])
        return kept_K.expand(prompts, heads, -1)
