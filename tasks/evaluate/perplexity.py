"""Perplexity over non-overlapping windows of a text.

GPTQ, SparseGPT and Wanda compute exp(Σ mean nll of a window × window / (windows × window)), where each mean is over the
window − 1 tokens that are predicted. As all windows are as long, that is the mean over all predicted tokens, as here.

Axes: B windows of a batch, T tokens of a window, N scored tokens, D model width, V vocabulary.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.model.mode import evaluating

LOGITS_AT_ONCE = 2**25  # elements, 128 MiB in float32: 256 tokens of a 128k vocabulary


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """`ppl` = exp(`nll`); `nll` in nats per scored token; `tokens` scored, `windows` read."""

    ppl: float
    nll: float
    tokens: int
    windows: int


def perplexity(
    model: PreTrainedModel,
    ids: Tensor,
    window: int,
    batch_size: int = 8,
    on_batch: Callable[[int, int], None] | None = None,
) -> Perplexity:
    """Score `ids` (1-D token ids) in non-overlapping windows of `window` tokens; what remains at the end is dropped.

    Within a window every token but the first is scored, given the tokens before it in the same window. The loss is
    computed in float32, summed in float64 and weighted by token, so it does not depend on `batch_size` beyond the
    rounding of the forward pass. Logits are made for `LOGITS_AT_ONCE` elements at a time.

    `on_batch(windows_done, windows)` is called after every batch.

    Raises ValueError for ids that are not 1-D integers of the model's vocabulary, a text shorter than one window, and a
    loss that is not finite.
    """
    windows_WT = _cut(ids, window, batch_size, model.config.get_text_config().vocab_size)
    windows = len(windows_WT)
    total, done = 0.0, 0
    with evaluating(model), torch.no_grad():
        score = _scorer(model, windows_WT[:1].to(model.device))
        for ids_BT in windows_WT.split(batch_size):
            batch_nll = score(ids_BT.to(model.device)).item()
            if not math.isfinite(batch_nll):
                raise ValueError(
                    f"nll: {batch_nll} within windows {done} to {done + len(ids_BT) - 1}; the model is broken"
                )
            total += batch_nll
            done += len(ids_BT)
            if on_batch is not None:
                on_batch(done, windows)
    tokens = windows * (window - 1)
    nll = total / tokens
    return Perplexity(ppl=math.exp(nll) if nll < 700 else math.inf, nll=nll, tokens=tokens, windows=windows)


def bits_per_byte(nll: float, tokens: int, text_bytes: int) -> float:
    """nll / ln 2 × tokens / (the UTF-8 bytes that they stand for): comparable between tokenizers.

    Of the scored tokens and their bytes (tasks.data.tokens.scored_bytes) it is exact. Of all tokens of a text and all
    its bytes it assumes that what was not scored costs on average what was.
    """
    if tokens < 1 or text_bytes < 1:
        raise ValueError(f"bits_per_byte: {tokens} tokens of {text_bytes} bytes given, both must be positive")
    return nll / math.log(2) * tokens / text_bytes


def _cut(ids: Tensor, window: int, batch_size: int, vocabulary: int) -> Tensor:
    if ids.dim() != 1 or ids.is_floating_point() or ids.is_complex():
        raise ValueError(f"ids: {ids.dtype} of shape {tuple(ids.shape)} given, a 1-D tensor of token ids is needed")
    if window < 2 or batch_size < 1:
        raise ValueError(f"window: at least 2 and batch_size: at least 1, {window} and {batch_size} given")
    windows = len(ids) // window
    if windows == 0:
        raise ValueError(f"ids: the text has {len(ids)} tokens, shorter than one window of {window}")
    low, high = ids.min().item(), ids.max().item()
    if low < 0 or high >= vocabulary:
        raise ValueError(f"ids: from {low} to {high}, the model's vocabulary is 0 to {vocabulary - 1}")
    return ids[: windows * window].reshape(windows, window).long()


def _scorer(model: PreTrainedModel, ids_BT: Tensor) -> Callable[[Tensor], Tensor]:
    """ids_BT -> sum of the loss. Logits in chunks of tokens where the model is a backbone and a head: tried on a few.

    A model that does more to its logits (Gemma 2 caps them, Cohere scales them) fails the trial and makes its own, in
    chunks of windows.
    """

    def whole(ids_BT: Tensor) -> Tensor:
        at_once = max(1, LOGITS_AT_ONCE // (ids_BT.shape[1] * model.config.get_text_config().vocab_size))
        return sum_of(
            _loss_sum(model(part_BT, use_cache=False).logits[:, :-1].flatten(0, 1), part_BT[:, 1:].flatten())
            for part_BT in ids_BT.split(at_once)
        )

    def chunked(ids_BT: Tensor) -> Tensor:
        at_once = max(1, LOGITS_AT_ONCE // head.weight.shape[0])
        hidden_ND = model.base_model(ids_BT, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
        parts = zip(hidden_ND.split(at_once), ids_BT[:, 1:].flatten().split(at_once), strict=True)
        return sum_of(_loss_sum(head(part_ND), ids_N) for part_ND, ids_N in parts)

    def sum_of(losses: Iterable[Tensor]) -> Tensor:
        return torch.stack(list(losses)).sum()

    head = model.get_output_embeddings()
    if head is None or model.base_model is model:
        return whole
    few_BT = ids_BT[:, :4]
    own_BTV = model(few_BT, use_cache=False).logits
    ours_BTV = head(model.base_model(few_BT, use_cache=False).last_hidden_state)
    return chunked if own_BTV.shape == ours_BTV.shape and torch.equal(own_BTV, ours_BTV) else whole


def _loss_sum(logits_NV: Tensor, ids_N: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits_NV.float(), ids_N, reduction="none").double().sum()
