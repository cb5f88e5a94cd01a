"""The door of the evaluation room: the stages `evaluate` and `time_speed`, of models as they were stored."""

from typing import Any

from safetensors.torch import load_file

from tasks.evaluate.perplexity import bits_per_byte, perplexity
from tasks.evaluate.size import count_parameters, counted_sparsity, memory_bytes, weight_bytes
from tasks.evaluate.speed import compare_speed
from tasks.handles import Checkpoint, EvaluationRow, SpeedRow, Tokens
from tasks.model.load import context_of, load_model, vocabulary_of
from tasks.progress import progress
from tasks.prune.pack import load_packed
from tasks.stage import open_folder, stage

BATCH_TOKENS = 2048
PROMPT_TOKENS, DECODE_TOKENS = 256, 64  # of one timed repetition; a shorter context shortens the prompt


@stage()
def evaluate(checkpoint: Checkpoint, tokens: Tokens, subject: str, device: str) -> EvaluationRow:
    """Perplexity of the stored checkpoint on the whole text, with what it costs and how many zeros it really has."""
    model = _load(checkpoint, device)
    ids = load_file(open_folder(tokens) / "tokens.safetensors")["ids"]
    batch_size = max(1, BATCH_TOKENS // tokens.window)
    with progress(f"perplexity of the {subject} model", total=tokens.windows) as reach:
        score = perplexity(model, ids, tokens.window, batch_size, on_batch=lambda done, _: reach(done))
    return EvaluationRow(
        subject=subject,
        checkpoint=checkpoint.hash,
        source=tokens.source,
        window=tokens.window,
        windows=score.windows,
        tokens=score.tokens,
        nll=score.nll,
        ppl=score.ppl,
        bits_per_byte=bits_per_byte(score.nll, tokens.tokens, tokens.text_bytes),
        parameters=count_parameters(model),
        size_bytes=weight_bytes(open_folder(checkpoint)),
        memory_bytes=memory_bytes(model),
        sparsity=counted_sparsity(model),
    )


@stage()
def time_speed(dense: Checkpoint, pruned: Checkpoint, device: str, machine: str) -> list[SpeedRow]:
    """Prefill and decode speed of both, interleaved. `machine` is in the key: another machine measures anew."""
    models = [_load(dense, device), _load(pruned, device)]
    config = models[0].config
    context = context_of(config) or PROMPT_TOKENS + DECODE_TOKENS
    decode_tokens = min(DECODE_TOKENS, context // 2)
    prompt_tokens = min(PROMPT_TOKENS, context - decode_tokens)
    return compare_speed(
        *models, vocab_size=vocabulary_of(config), prompt_tokens=prompt_tokens, decode_tokens=decode_tokens
    )


def _load(checkpoint: Checkpoint, device: str) -> Any:
    folder = open_folder(checkpoint)
    return load_packed(folder, device) if checkpoint.kind == "packed" else load_model(folder, device)
