"""What the one reading of a prompt by the uncut model tells of the prompt.

Axes: T tokens of the prompt, V words, D width of the model.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from tasks.train_controller.act.prefill import Prefill
from tasks.train_controller.observation import PromptFeatures

LOOKED_AT = 1 << 18  # numbers of the logits, and of the states, so that a decision stays quick
LEAST = 8  # tokens that are looked at, however many words there are
WORST = 0.9  # quantile


@torch.inference_mode()
def describe_prompt(read: Prefill) -> PromptFeatures:
    """No forward, and a bounded time: of a long prompt the losses and the first block are those of its last tokens.

    So many that they have `LOOKED_AT` logits, and as many numbers of a state, but `LEAST` at the least: 85 tokens of
    3,072 words, 8 of 128 k. The logits (T, V) are not copied; `tokens` are all.
    ValueError for a prompt without tokens.
    """
    ids_T, logits_TV = read.ids_1T[0], read.logits_TV
    if not len(ids_T):
        raise ValueError("prompt: no tokens given, valid is one or more")
    surprise = math.log(logits_TV.shape[1])  # nats, of a model that knows nothing
    loss_T = _losses(logits_TV, ids_T)
    first_V = logits_TV[-1].softmax(0)
    in_TD, out_TD = (_last(states_TD).float() for states_TD in (read.first_block_in_TD, read.first_block_out_TD))
    change_T = (1 - cosine_similarity(in_TD, out_TD, dim=-1)) / 2
    return PromptFeatures(
        tokens=len(ids_T),
        ppl=float(loss_T.mean().exp()) if len(loss_T) else 1.0,
        entropy=_share(torch.special.entr(first_V).sum() / surprise),
        confidence=_share(first_V.max()),
        worst=_share(loss_T.quantile(WORST) / surprise) if len(loss_T) else 0.0,
        first_block=_share(change_T.mean()),
    )


def _losses(logits_TV: Tensor, ids_T: Tensor) -> Tensor:
    """The nats that each of the last tokens costs, float32; none for the first of a prompt, which nothing foretells."""
    known_tV = _last(logits_TV[:-1])
    return cross_entropy(known_tV, ids_T[len(ids_T) - len(known_tV) :], reduction="none")


def _last(rows_TX: Tensor) -> Tensor:
    """As many rows from the end as hold `LOOKED_AT` numbers, `LEAST` at the least; a view."""
    return rows_TX[-max(LEAST, LOOKED_AT // rows_TX.shape[1]) :]


def _share(value: Tensor) -> float:
    """A value that is one up to rounding, from 0 to 1."""
    return min(1.0, max(0.0, float(value)))
