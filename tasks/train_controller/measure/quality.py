"""How well an action continues a prompt: the loss of a reference continuation, and the distance to the uncut model.

The reference is text that was held out, never what the model itself writes. All actions go on from the prefill of the
uncut model, which predicts the first token of the reference for all of them alike.

Axes: R tokens of the reference, N those of a chunk, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import nll_loss

from tasks.prune.structure.profiles import Profiles
from tasks.train_controller.act.actions import Action
from tasks.train_controller.act.fitting import in_force
from tasks.train_controller.act.prefill import Prefill

DENSE = Action()
LOGITS_AT_ONCE = 2**21  # elements that are float64 at a time, 16 MiB; several such tensors live at once


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Of a continuation, in nats per token: its loss, that of the uncut model, and KL(uncut, this)."""

    nll: float
    dense_nll: float
    kl: float

    @property
    def rise(self) -> float:
        """The share by which the perplexity of the reference grows."""
        return math.expm1(self.nll - self.dense_nll)


@torch.inference_mode()
def judge(profiles: Profiles, read: Prefill, reference_1R: Tensor, actions: Sequence[Action]) -> list[Quality]:
    """The quality of each action: one forward over the reference, teacher-forced, behind what it keeps of the prompt.

    Logits are kept of the uncut model and of one action at a time, in the model's dtype; losses are float64.
    Raises ValueError for a loss that is not finite.
    """
    tokens = reference_1R.shape[1]
    first_1V = read.logits_LV[-1:]
    first_nll, _ = _compare(first_1V, first_1V, reference_1R[0, :1])
    dense_RV = _predict(profiles, read, reference_1R, DENSE)
    dense_nll, _ = _compare(dense_RV, dense_RV, reference_1R[0, 1:])
    judged = []
    for action in actions:
        logits_RV = dense_RV if action == DENSE else _predict(profiles, read, reference_1R, action)
        nll, kl = _compare(dense_RV, logits_RV, reference_1R[0, 1:])
        if not math.isfinite(nll):
            raise ValueError(f"nll: {nll} of a reference with {action}; the model is broken")
        means = [(first_nll + each) / tokens for each in (nll, dense_nll)]
        judged.append(Quality(nll=means[0], dense_nll=means[1], kl=kl / tokens))
    return judged


def _predict(profiles: Profiles, read: Prefill, reference_1R: Tensor, action: Action) -> Tensor:
    """The logits (R - 1, V) of all tokens of the reference but the first."""
    if reference_1R.shape[1] == 1:
        return read.logits_LV[:0]
    with in_force(profiles, read, action) as fitted:
        ids_1R = reference_1R[:, :-1].to(fitted.model.device)
        return fitted.model(ids_1R, past_key_values=fitted.cache, use_cache=True).logits[0]


def _compare(dense_RV: Tensor, logits_RV: Tensor, ids_R: Tensor) -> tuple[float, float]:
    """The loss of `logits_RV` and KL(dense, it), sums over the tokens; exactly 0 where both are equal."""
    nll, kl = 0.0, 0.0
    at_once = max(1, LOGITS_AT_ONCE // logits_RV.shape[1])
    chunks = zip(*(each.split(at_once) for each in (dense_RV, logits_RV, ids_R.to(logits_RV.device))), strict=True)
    for dense_NV, logits_NV, ids_N in chunks:
        dense_NV, logits_NV = dense_NV.double().log_softmax(-1), logits_NV.double().log_softmax(-1)
        nll += nll_loss(logits_NV, ids_N, reduction="sum").item()
        kl += (dense_NV.exp() * (dense_NV - logits_NV)).sum().item()
    return nll, kl
