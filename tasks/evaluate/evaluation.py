"""The row of an evaluated model: its score on a whole text, what it costs, how many zeros it has."""

from collections.abc import Callable

from torch import Tensor
from transformers import PreTrainedModel

from tasks.evaluate.perplexity import bits_per_byte, perplexity
from tasks.evaluate.size import cache_bytes, count_parameters, counted_sparsity, memory_bytes
from tasks.handles import EvaluationRow, Tokens

BATCH_TOKENS = 2048  # of a mapped model too, though it is read anew for each batch: so that its score is the same


def evaluate_model(
    model: PreTrainedModel,
    ids: Tensor,
    tokens: Tokens,
    subject: str,
    checkpoint: str,
    size_bytes: int,
    on_batch: Callable[[int, int], None] | None = None,
) -> EvaluationRow:
    """Perplexity of `model` on `ids`, the whole text that `tokens` describes. `on_batch` as of `perplexity`."""
    score = perplexity(model, ids, tokens.window, max(1, BATCH_TOKENS // tokens.window), on_batch)
    return EvaluationRow(
        subject=subject,
        checkpoint=checkpoint,
        source=tokens.source,
        window=tokens.window,
        windows=score.windows,
        tokens=score.tokens,
        nll=score.nll,
        ppl=score.ppl,
        bits_per_byte=bits_per_byte(score.nll, score.tokens, tokens.scored_bytes),
        parameters=count_parameters(model),
        size_bytes=size_bytes,
        memory_bytes=memory_bytes(model),
        kv_bytes=cache_bytes(model),
        sparsity=counted_sparsity(model),
    )
