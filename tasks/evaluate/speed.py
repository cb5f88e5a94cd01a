"""How fast a pruned model is beside the dense one: prefill and decode apart, interleaved, as a ratio with an interval.

Machines are shared and drift, so a latency alone says little. Each repetition times both models next to each other, and
the order turns every time (dense, pruned, pruned, dense, …), so that a drift falls on both alike. What is compared are
the ratios of these pairs: their median, and the distribution-free interval of a median, which runs between two of the
sorted ratios and assumes nothing of the noise but that the pairs are independent.

Axes: B sequences, T tokens.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import binom
from torch import Tensor
from transformers import PreTrainedModel

from tasks.evaluate.size import count_sparse_linears
from tasks.handles import SpeedRow
from tasks.model.load import context_of, vocabulary_of

PHASES = ("prefill", "decode")
PROMPT_TOKENS, DECODE_TOKENS = 256, 64  # of one timed repetition; a shorter context shortens the prompt
WARM_UPS = 2
LEAST_REPETITIONS = 6  # no interval of fewer pairs reaches 95 %


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Speed against a reference, above 1 is faster; `low` to `high` holds the true median in 95 % of measurements."""

    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """faster, slower, or "no gain" where the interval covers 1."""
        if self.low <= 1 <= self.high:
            return "no gain"
        return "faster" if self.low > 1 else "slower"


def compare_speed(
    dense: PreTrainedModel,
    pruned: PreTrainedModel | None = None,
    *,
    vocab_size: int,
    prompt_tokens: int = 256,
    decode_tokens: int = 64,
    batch: int = 1,
    repetitions: int = 15,
    seed: int = 0,
) -> list[SpeedRow]:
    """Time both models, or `dense` alone: a row for each model and phase, dense first. All rows of dense have ratio 1.

    Prefill is one forward over a random prompt (from `seed`), with logits for its last token, as in generation. Decode
    goes on from its cache, token by token, greedily, for exactly `decode_tokens` forwards: no end of text stops it.
    Latencies are medians over `repetitions` after warm-ups; on CUDA the device is waited for at both ends.

    Raises ValueError for fewer than 6 repetitions, no tokens, and more of them than a model's context.
    """
    models = {"dense": dense} if pruned is None else {"dense": dense, "pruned": pruned}
    return compare_subjects(
        list(models),
        models.__getitem__,
        vocab_size=vocab_size,
        prompt_tokens=prompt_tokens,
        decode_tokens=decode_tokens,
        batch=batch,
        repetitions=repetitions,
        seed=seed,
    )


def compare_subjects(
    subjects: Sequence[str],
    put: Callable[[str], PreTrainedModel],
    *,
    vocab_size: int,
    prompt_tokens: int = 256,
    decode_tokens: int = 64,
    batch: int = 1,
    repetitions: int = 15,
    seed: int = 0,
) -> list[SpeedRow]:
    """As `compare_speed`, of any number of subjects, the first of them "dense".

    `put` returns the model of a subject, one of several or always the same that it switches; its time counts nowhere.
    """
    for subject in subjects:
        _check(subject, put(subject), vocab_size, prompt_tokens, decode_tokens, batch, repetitions)
    prompt_BT = torch.randint(0, vocab_size, (batch, prompt_tokens), generator=torch.Generator().manual_seed(seed))
    for subject in subjects:
        for _ in range(WARM_UPS):
            time_phases(put(subject), prompt_BT, decode_tokens)
    seconds: dict[tuple[str, str], list[float]] = {(subject, phase): [] for subject in subjects for phase in PHASES}
    for repetition in range(repetitions):
        for subject in subjects if repetition % 2 == 0 else reversed(subjects):
            for phase, taken in zip(PHASES, time_phases(put(subject), prompt_BT, decode_tokens), strict=True):
                seconds[subject, phase].append(taken)
    tokens = {"prefill": batch * prompt_tokens, "decode": batch * decode_tokens}
    return [
        _row(put(subject), subject, phase, batch, tokens[phase], taken, seconds["dense", phase])
        for (subject, phase), taken in seconds.items()
    ]


def tokens_to_time(model: PreTrainedModel) -> dict[str, int]:
    """How many tokens a repetition reads and writes, within the model's context."""
    context = context_of(model.config) or PROMPT_TOKENS + DECODE_TOKENS
    decode_tokens = min(DECODE_TOKENS, context // 2)
    prompt_tokens = min(PROMPT_TOKENS, context - decode_tokens)
    return {
        "vocab_size": vocabulary_of(model.config),
        "prompt_tokens": prompt_tokens,
        "decode_tokens": decode_tokens,
    }


def compare_paired(reference: Sequence[float], candidate: Sequence[float]) -> Ratio:
    """The speed of `candidate` against `reference`, from latencies taken in pairs.

    With n pairs, the interval goes from the k-th smallest to the k-th largest ratio; k is the largest for which
    2·P(Binomial(n, 1/2) < k) stays below 5 %: 15 pairs give the 4th to the 12th, at 96.5 %.
    Source: the interval for a quantile in Conover, Practical Nonparametric Statistics, section 3.2.
    """
    pairs = len(reference)
    if pairs != len(candidate) or pairs < LEAST_REPETITIONS:
        raise ValueError(
            f"repetitions: {pairs} and {len(candidate)} given, at least {LEAST_REPETITIONS} pairs are needed"
        )
    ratios = sorted(before / after for before, after in zip(reference, candidate, strict=True))
    k = int(binom.ppf(0.025, pairs, 0.5))
    return Ratio(ratio=statistics.median(ratios), low=ratios[k - 1], high=ratios[-k])


@torch.no_grad()
def time_phases(model: PreTrainedModel, prompt_BT: Tensor, decode_tokens: int) -> tuple[float, float]:
    """Seconds of one prefill, and of the decoding that follows it."""
    ids_BT = prompt_BT.to(model.device)
    started = now(model)
    output = model(ids_BT, use_cache=True, logits_to_keep=1)
    prefilled = now(model)
    for _ in range(decode_tokens):
        ids_BT = output.logits[:, -1:].argmax(-1)
        output = model(ids_BT, past_key_values=output.past_key_values, use_cache=True)
    return prefilled - started, now(model) - prefilled


def now(model: PreTrainedModel) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def _row(
    model: PreTrainedModel, subject: str, phase: str, batch: int, tokens: int, taken: list[float], dense: list[float]
) -> SpeedRow:
    reference = subject == "dense"
    compared = Ratio(ratio=1.0, low=1.0, high=1.0) if reference else compare_paired(dense, taken)
    latency = statistics.median(taken)
    return SpeedRow(
        subject=subject,
        phase=phase,
        batch=batch,
        tokens=tokens,
        repetitions=len(taken),
        latency_ms=1000 * latency,
        tokens_per_s=tokens / latency,
        ratio=compared.ratio,
        ratio_low=compared.low,
        ratio_high=compared.high,
        verdict="reference" if reference else compared.verdict,
        device=model.device.type,
        sparse_linears=count_sparse_linears(model),
    )


def _check(
    subject: str, model: PreTrainedModel, vocab_size: int, prompt: int, decode: int, batch: int, repetitions: int
) -> None:
    if min(prompt, decode, batch) < 1:
        raise ValueError(f"speed: {prompt} prompt tokens, {decode} decoded, batch {batch} given, each is at least 1")
    if repetitions < LEAST_REPETITIONS:
        raise ValueError(f"repetitions: {repetitions} given, at least {LEAST_REPETITIONS} are needed")
    config = model.config.get_text_config()
    if vocab_size > config.vocab_size:
        raise ValueError(f"vocab_size: {vocab_size} given, the {subject} model has {config.vocab_size}")
    context = getattr(config, "max_position_embeddings", None)
    if context is not None and prompt + decode > context:
        raise ValueError(
            f"prompt_tokens and decode_tokens: {prompt} + {decode} given, the {subject} model takes {context}"
        )
