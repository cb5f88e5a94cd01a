"""Block influence: how far a block turns the hidden states.

Source: Men et al.: ShortGPT: Layers in Large Language Models are More Redundant Than You Expect, arXiv:2403.03853,
"block influence".
Axes: B windows of a batch, T tokens of a window, D model width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tasks.calibrate.importance.coupled import precise
from tasks.calibrate.importance.importance import BLOCKS, Importance, Scores, Subject
from tasks.calibrate.walk import Walk, lent


@dataclass(frozen=True, kw_only=True)
class Influence(Importance):
    """1 − cos(in, out) of a block as a whole, the mean over all tokens: 0 for a block that only scales, 2 at most."""

    @torch.no_grad()
    def _score(self, subject: Subject) -> Scores:
        walk = subject.walk()
        return [{BLOCKS: _influence(walk, index).cpu().reshape(1)} for index in range(len(walk.blocks))]


def _influence(walk: Walk, index: int) -> Tensor:
    """Of one block; the walk moves on to the next."""
    cosines, tokens = torch.zeros((), dtype=torch.float64, device=walk.device), 0
    with lent(walk.blocks[index], walk.device):
        for batch in range(len(walk.hidden)):
            before_BTD = walk.hidden[batch].to(walk.device)
            after_BTD = walk.advance(index, batch)
            cosine_BT = nn.functional.cosine_similarity(precise(before_BTD), precise(after_BTD), dim=-1)
            cosines += cosine_BT.sum(dtype=torch.float64)
            tokens += cosine_BT.numel()
    return 1 - cosines / tokens
