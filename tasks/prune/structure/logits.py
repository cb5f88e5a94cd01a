"""What a model computes, in one word: equal where the logits of some tokens are equal to the last bit."""

import hashlib

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.model.load import vocabulary_of
from tasks.model.mode import evaluating

TRIAL_TOKENS = 16


@torch.no_grad()
def digest_of_logits(model: PreTrainedModel, ids_BT: Tensor | None = None) -> str:
    """SHA-256, in hex, over the logits of `ids_BT` (windows, tokens); of 16 different tokens where none are given."""
    if ids_BT is None:
        ids_BT = torch.arange(TRIAL_TOKENS)[None] % vocabulary_of(model.config)
    with evaluating(model):
        logits_BTV = model(ids_BT.to(model.device), use_cache=False).logits
    return hashlib.sha256(logits_BTV.cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
