"""What a model says of windows of text: the loss of each, and how the loss of all rises with each rung.

Axes: W windows, B windows of a batch, T tokens of a window, V vocabulary, N = B·T, R rungs of a part.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.calibrate.batches import BATCH_TOKENS
from tasks.calibrate.importance.loss import nll
from tasks.model.mode import evaluating
from tasks.train_controller.allocators.problem import Levels
from tasks.train_controller.allocators.rungs import Lever, Rungs
from tasks.train_controller.allocators.search import Rises

LOGITS_AT_ONCE = 2**25  # elements, 128 MiB in float32
GRADIENT_TOKENS = {"cpu": 1024, "cuda": 2048}  # of a batch that is gone through backward: its activations are kept

Losses = tuple[float, ...]  # nats per token of each window


@torch.no_grad()
def window_losses(model: PreTrainedModel, ids_WT: Tensor) -> Losses:
    """Nats per token of each window, in which every token but the first is scored; infinity for what is no number."""
    with evaluating(model):
        losses = torch.cat([_losses_of(model, ids_BT) for ids_BT in _batches(model, ids_WT, BATCH_TOKENS)])
    return tuple(loss if math.isfinite(loss) else math.inf for loss in losses.tolist())


def rung_rises(rungs: Rungs, levels: Levels, ids_WT: Tensor) -> Rises:
    """By how many nats per token each rung of each part raises the loss.

    To first order about `levels`, of all rungs of all parts from one backward pass: the gradient by what goes with a
    rung, times what that is where it stays. So it is too low for a rung that is there, and too high for one that has
    gone: the loss bends up, by about as much in either.
    """
    model, scored, lost = rungs.model, ids_WT[:, 1:].numel(), 0.0
    sums = [torch.zeros(most + 1, dtype=torch.float64, device=model.device) for most in rungs.problem.rungs]
    with evaluating(model), rungs.levers(levels) as levers_P, ExitStack() as hooks, torch.enable_grad():
        for sum_R, levers in zip(sums, levers_P, strict=True):
            for lever in levers:
                hook = partial(_add, lever, sum_R)
                hooks.callback(lever.value.register_post_accumulate_grad_hook(hook).remove)
        for ids_BT in _batches(model, ids_WT, GRADIENT_TOKENS):
            loss = nll(model, ids_BT)
            loss.backward()
            lost += loss.item()
    parts = [(-sum_R[:-1] / scored).cpu().numpy() for sum_R in sums]  # the last is of what outlasts all rungs
    return Rises(loss=lost / scored, parts=parts)


def _add(lever: Lever, sum_R: Tensor, value: Tensor) -> None:
    """Add what the gradient says to the rung that each element goes with, and let go of it."""
    assert value.grad is not None
    product = (value.grad.double() * lever.full.double()).flatten()
    sum_R.index_add_(0, lever.outlasts.flatten().long(), product)
    value.grad = None


def _losses_of(model: PreTrainedModel, ids_BT: Tensor) -> Tensor:
    logits_BTV = model(ids_BT, use_cache=False).logits.float()
    next_BT = ids_BT.roll(-1, 1)  # of the last nothing is known; it is scored and dropped, which spares a copy of all
    losses_N = nn.functional.cross_entropy(logits_BTV.flatten(0, 1), next_BT.flatten(), reduction="none")
    return losses_N.view_as(ids_BT)[:, :-1].double().mean(1)


def _batches(model: PreTrainedModel, ids_WT: Tensor, most: Mapping[str, int]) -> Iterator[Tensor]:
    """On the device of the model, as many windows at once as its logits and the `most` tokens of the device allow."""
    tokens = ids_WT.shape[1]
    of_logits = LOGITS_AT_ONCE // (tokens * model.config.get_text_config().vocab_size)
    at_once = max(1, min(of_logits, most[model.device.type] // tokens))
    return (ids_BT.to(model.device) for ids_BT in ids_WT.split(at_once))
