"""Influence: how far a block, its attention or its FFN turns the hidden states.

Sources: Men et al.: ShortGPT: Layers in Large Language Models are More Redundant Than You Expect, arXiv:2403.03853,
"block influence"; of attentions and FFNs He et al.: What Matters in Transformers? Not All Attention is Needed,
arXiv:2406.15786.
Axes: B windows of a batch, T tokens of a window, D model width.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tasks.calibrate.importance.coupled import precise
from tasks.calibrate.importance.importance import BLOCKS, WHOLE, ImportanceByKind, Scores, Subject
from tasks.calibrate.importance.silenced import silenced
from tasks.calibrate.walk import Walk, lent
from tasks.model.anatomy import attention_of
from tasks.model.units import ATTENTION, FFN


@dataclass(frozen=True, kw_only=True)
class Influence(ImportanceByKind):
    """1 − cos(before, after), the mean over all tokens: 0 for what only scales the hidden states, 2 at most.

    Of a block as a whole they are those before and after it. Between its attention and its FFN they are what the block
    would give without the FFN, wherever its norms stand; it runs once more for these two. A block that has lost a part
    has no score of that.
    """

    kinds: tuple[str, ...] = WHOLE

    scorable: ClassVar[tuple[str, ...]] = WHOLE

    @torch.no_grad()
    def _score(self, subject: Subject) -> Scores:
        walk = subject.walk()
        return [_influences(subject, walk, index, self.kinds) for index in range(len(walk.blocks))]


def _influences(subject: Subject, walk: Walk, index: int, asked: Sequence[str]) -> dict[str, Tensor]:
    """Of one block; the walk moves on to the next."""
    kinds = [kind for kind in (BLOCKS, *subject.units[index].parts) if kind in asked]
    parted = ATTENTION in kinds or FFN in kinds
    tokens = sum(ids_BT.numel() for ids_BT in subject.batches)
    cosines = {kind: torch.zeros((), dtype=torch.float64, device=walk.device) for kind in kinds}
    with lent(walk.blocks[index], walk.device):
        for batch in range(len(walk.hidden)):
            before_BTD = walk.hidden[batch].to(walk.device)
            between_BTD = before_BTD  # for a block as a whole nobody asks
            if parted:
                between_BTD = _without_ffn(subject, walk, index, batch)
            after_BTD = walk.advance(index, batch)
            ends = {
                BLOCKS: (before_BTD, after_BTD),
                ATTENTION: (before_BTD, between_BTD),
                FFN: (between_BTD, after_BTD),
            }
            for kind, cosine in cosines.items():
                cosine += _cosine(*ends[kind])
    return {kind: (1 - cosine / tokens).cpu().reshape(1) for kind, cosine in cosines.items()}


def _without_ffn(subject: Subject, walk: Walk, index: int, batch: int) -> Tensor:
    """The output of the block if its FFN gave zeros."""
    last = _last_of_ffn(subject, index)
    with nullcontext() if last is None else silenced(last):
        return walk.output(index, batch)


def _last_of_ffn(subject: Subject, index: int) -> nn.Linear | None:
    """What the FFN of a block adds is what this makes; None without one. Its channels need be no units (Phi 3)."""
    linears, attention = subject.anatomy.linears(index), attention_of(subject.anatomy.blocks[index])
    if (known := subject.units[index].parts.get(FFN)) is not None:
        return linears[known]
    others = [each for name, each in linears.items() if not (attention and name.startswith(f"{attention}."))]
    return others[-1] if others else None


def _cosine(before_BTD: Tensor, after_BTD: Tensor) -> Tensor:
    """The sum over all tokens."""
    cosine_BT = nn.functional.cosine_similarity(precise(before_BTD), precise(after_BTD), dim=-1)
    return cosine_BT.sum(dtype=torch.float64)
