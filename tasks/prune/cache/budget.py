"""How much of a prompt's keys and values stays in the cache when decoding begins, and which positions these are.

Axes: B prompts, H KV heads, Q query heads, T positions, K of them that stay, D width of a head.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor

from tasks.prune.weight.selection import keep_largest


@dataclass(frozen=True, kw_only=True)
class KVBudget(ABC):
    """Of a prompt of T positions ceil(ratio * T) stay, in every block and every KV head alike.

    Never fewer than `least`, which is what the method cannot do without, or all T of a shorter prompt: there the cache
    shrinks by less than the ratio says. Raises ValueError for a ratio outside (0, 1].
    """

    name: ClassVar[str]
    ratio: float

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio: {self.ratio} given, valid is above 0 and at most 1")

    @property
    def least(self) -> int:
        """How many positions stay whatever the ratio."""
        return 1

    @property
    def observed(self) -> int:
        """Of how many of the last tokens the method reads the queries."""
        return 0

    @property
    def needs_queries(self) -> bool:
        return self.observed > 0

    def count(self, tokens: int) -> int:
        """How many of so many positions stay; the ratio is taken as it is written, so that 0.7 of 10 are 7."""
        return min(tokens, max(self.least, math.ceil(Fraction(repr(self.ratio)) * tokens)))

    def keep(self, key_BHTD: Tensor, value_BHTD: Tensor, query_BQTD: Tensor | None = None) -> Tensor:
        """The positions that stay: int64 (B, H, K), ascending, K = `count(T)`.

        Keys and queries are those that are multiplied, rotated already; query heads h * Q / H and on read KV head h.
        `query_BQTD`: of the last `observed` tokens or more, scaled so that the attention's logits are q·k / sqrt(D).
        Raises ValueError where the method needs queries that are not there.
        """
        prompts, heads, tokens, _ = key_BHTD.shape
        given = 0 if query_BQTD is None else query_BQTD.shape[2]
        if given < min(self.observed, tokens):
            raise ValueError(f"query: those of {given} tokens given, {self} needs {min(self.observed, tokens)}")
        if self.count(tokens) == tokens:
            return torch.arange(tokens, device=key_BHTD.device).expand(prompts, heads, tokens)
        return self.choose(key_BHTD, value_BHTD, query_BQTD)

    @abstractmethod
    def choose(self, key_BHTD: Tensor, value_BHTD: Tensor, query_BQTD: Tensor | None) -> Tensor:
        """`keep` where some positions go."""

    def __str__(self) -> str:
        """`window:0.5`, `snapkv:0.25,window=16`: what is not the default is named; `parse_budget` reads it back."""
        named = [f"{each.name}={getattr(self, each.name)}" for each in fields(self) if self._is_changed(each.name)]
        return ",".join([f"{self.name}:{float(self.ratio)}", *named])

    def _is_changed(self, name: str) -> bool:
        return name != "ratio" and getattr(self, name) != getattr(type(self), name)


def best(score_BHT: Tensor, count: int) -> Tensor:
    """The positions of the `count` largest scores of each head, int64 (B, H, K), ascending; of equal ones the first."""
    if count == 0:
        return torch.empty(*score_BHT.shape[:2], 0, dtype=torch.int64, device=score_BHT.device)
    keep_GT = keep_largest(score_BHT.detach().flatten(0, 1), count)
    return keep_GT.nonzero()[:, 1].view(*score_BHT.shape[:2], count)
