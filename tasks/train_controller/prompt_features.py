"""What the one reading of a prompt by the uncut model tells of the prompt.

Axes: T tokens of the prompt, V words, D width of the model.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from tasks.train_controller.observation import PromptFeatures
from tasks.train_controller.prefill import Prefill

AT_ONCE = 16  # rows of logits that are looked at together; the only ones of which there is a copy
WORST = 0.9  # quantile


@torch.inference_mode()
def describe_prompt(read: Prefill) -> PromptFeatures:
    """No forward, and beside the logits (T, V) never more than a few rows of them; about 1 ms for 1 M logits on a CPU.

    ValueError for a prompt without tokens.
    """
    ids_T, logits_TV = read.ids_1T[0], read.logits_TV
    if not len(ids_T):
        raise ValueError("prompt: no tokens given, valid is one or more")
    surprise = math.log(logits_TV.shape[1])  # nats, of a model that knows nothing
    loss_T = _losses(logits_TV, ids_T)
    first_V = logits_TV[-1].softmax(0)
    change_T = (1 - cosine_similarity(read.first_block_in_TD.float(), read.first_block_out_TD.float(), dim=-1)) / 2
    return PromptFeatures(
        tokens=len(ids_T),
        ppl=float(loss_T.mean().exp()) if len(loss_T) else 1.0,
        entropy=_share(torch.special.entr(first_V).sum() / surprise),
        confidence=_share(first_V.max()),
        worst=_share(loss_T.quantile(WORST) / surprise) if len(loss_T) else 0.0,
        first_block=_share(change_T.mean()),
    )


def _losses(logits_TV: Tensor, ids_T: Tensor) -> Tensor:
    """The nats that each token but the first costs, float32 (T - 1,)."""
    known = zip(logits_TV[:-1].split(AT_ONCE), ids_T[1:].split(AT_ONCE), strict=True)
    return torch.cat([cross_entropy(some_tV, ids_t, reduction="none") for some_tV, ids_t in known])


def _share(value: Tensor) -> float:
    """A value that is one up to rounding, from 0 to 1."""
    return min(1.0, max(0.0, float(value)))
