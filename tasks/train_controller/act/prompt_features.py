"""What the one reading of a prompt by the uncut model tells of the prompt.

Axes: T tokens of the prompt, L the last of them, V words, D width of the model.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from tasks.train_controller.act.prefill import Prefill, rows_of
from tasks.train_controller.observation import PromptFeatures

WORST = 0.9  # quantile
MOST_NATS = 700.0  # of which a perplexity is still a number


@torch.inference_mode()
def describe_prompt(read: Prefill) -> PromptFeatures:
    """No forward, and a bounded time: of a long prompt the losses and the first block are those of its last tokens.

    So many that they have `LOOKED_AT` logits, and as many numbers of a state, but `LEAST` at the least: 42 tokens of
    3,072 words, 8 of 128 k. `tokens` are all. ValueError for a prompt without tokens.
    """
    ids_T, words = read.ids_1T[0], read.logits_LV.shape[1]
    if not len(ids_T):
        raise ValueError("prompt: no tokens given, valid is one or more")
    foretold_LV = read.logits_LV[-rows_of(words) - 1 :].log_softmax(1)  # the last of them what is to be written
    known = len(foretold_LV) - 1
    loss_L1 = -foretold_LV[:known].gather(1, ids_T[len(ids_T) - known :, None])
    first_V = foretold_LV[known].exp()
    in_LD, out_LD = (_last(states_TD).float() for states_TD in (read.first_block_in_TD, read.first_block_out_TD))
    facts_3 = torch.stack([torch.special.entr(first_V).sum(), first_V.max(), cosine_similarity(in_LD, out_LD).mean()])
    entropy, confidence, cosine, *losses = torch.cat([facts_3, loss_L1[:, 0]]).tolist()  # a GPU is waited for once
    surprise = math.log(words)  # nats, of a model that knows nothing
    return PromptFeatures(
        tokens=len(ids_T),
        ppl=math.exp(min(MOST_NATS, math.fsum(losses) / known)) if losses else 1.0,
        entropy=_share(entropy / surprise),
        confidence=_share(confidence),
        worst=_share(_quantile(losses, WORST) / surprise) if losses else 0.0,
        first_block=_share((1 - cosine) / 2),
    )


def _last(rows_TX: Tensor) -> Tensor:
    """As many rows from the end as are looked at; a view."""
    return rows_TX[-rows_of(rows_TX.shape[1]) :]


def _quantile(values: Sequence[float], share: float) -> float:
    """Between two of the sorted values as if a straight line joined them."""
    place, rising = share * (len(values) - 1), sorted(values)
    low, high = rising[int(place)], rising[math.ceil(place)]
    return low + (place - int(place)) * (high - low) if high > low else low


def _share(value: float) -> float:
    """A value that is one up to rounding, from 0 to 1."""
    return min(1.0, max(0.0, value))
