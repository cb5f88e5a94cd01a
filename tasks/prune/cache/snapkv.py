"""SnapKV: what the end of a prompt attends to is what the answer will attend to (arXiv:2404.14469).

Axes: G query heads of one KV head, W tokens that are observed, N = G * W of their queries; the others as in budget.py.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tasks.prune.cache.budget import KVBudget, best


@dataclass(frozen=True, kw_only=True)
class SnapKV(KVBudget):
    """The last `window` positions, and of those before them the ones that the window's queries attend to most.

    The attention to a position is the mean over the window's queries and the query heads of its KV head; then each
    position gets the most of the `pool` around it, so that neighbours stay together. The window stays whatever the
    ratio. Raises ValueError for a window below 1, and a pool that is not odd.
    """

    name: ClassVar[str] = "snapkv"
    window: int = 32
    pool: int = 7

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1:
            raise ValueError(f"window: {self.window} given, valid is 1 or more")
        if self.pool < 1 or self.pool % 2 == 0:
            raise ValueError(f"pool: {self.pool} given, valid is an odd number: 1, 3, 5, …")

    @property
    def least(self) -> int:
        return self.window

    @property
    def observed(self) -> int:
        return self.window

    def choose(self, key_BHTD: Tensor, value_BHTD: Tensor, query_BQTD: Tensor | None) -> Tensor:
        assert query_BQTD is not None  # `keep` has seen to it
        prompts, heads, tokens, _ = key_BHTD.shape
        earlier = tokens - self.window
        attention_BHT = mean_attention(key_BHTD, query_BQTD[:, :, -self.window :])[:, :, :earlier]
        score_BHT = nn.functional.max_pool1d(attention_BHT, self.pool, stride=1, padding=self.pool // 2)
        latest_W = torch.arange(earlier, tokens, device=key_BHTD.device)
        chosen_BHK = best(score_BHT, self.count(tokens) - self.window)
        return torch.cat([chosen_BHK, latest_W.expand(prompts, heads, -1)], dim=2)


def mean_attention(key_BHTD: Tensor, query_BQWD: Tensor) -> Tensor:
    """How much the last W tokens attend to each position, (B, H, T): the mean over them and over the query heads.

    Each attends to itself and what is before it. In float32 or better.
    """
    prompts, heads, _, width = key_BHTD.shape
    observed = query_BQWD.shape[2]
    key_BHTD = key_BHTD.to(torch.promote_types(key_BHTD.dtype, torch.float32))
    query_BHND = (query_BQWD.to(key_BHTD.dtype) / width**0.5).reshape(prompts, heads, -1, width)
    logits_BHGWT = (query_BHND @ key_BHTD.transpose(-1, -2)).unflatten(2, (-1, observed))
    later_WW = torch.ones(observed, observed, dtype=torch.bool, device=key_BHTD.device).triu(1)
    logits_BHGWT[..., -observed:].masked_fill_(later_WW, -torch.inf)
    return logits_BHGWT.softmax(-1).mean(dim=(2, 3))
