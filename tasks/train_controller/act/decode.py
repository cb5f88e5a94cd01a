"""Token by token: the model in force writes on from a prompt's cache, the likeliest token each time or a drawn one.

Axes: V vocabulary.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is chosen. `temperature` 0: always the likeliest; a tie goes to the lower id.

    Otherwise it is drawn from softmax(logits / temperature), and with `top_p` below 1 from the fewest tokens that reach
    that share (nucleus sampling: Holtzman et al., 2020, arXiv:1904.09751). The same seed draws the same tokens.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature: {self.temperature} given, valid is 0 (the likeliest token) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: {self.top_p} given, valid is above 0, at most 1")

    def chooser(self) -> Callable[[Tensor], int]:
        """logits_V -> a token. Each chooser begins with the seed."""
        if self.temperature == 0:
            return lambda logits_V: int(logits_V.float().argmax())
        generator = torch.Generator().manual_seed(self.seed)  # on the CPU: every device draws alike
        return lambda logits_V: int(torch.multinomial(self._shares(logits_V), 1, generator=generator))

    def _shares(self, logits_V: Tensor) -> Tensor:
        """What each token is drawn by, on the CPU; they need not add up to 1."""
        logits_V = logits_V.double().cpu()
        share_V = ((logits_V - logits_V.max()) / self.temperature).softmax(0)
        falling_V, order_V = share_V.sort(descending=True, stable=True)
        before_V = falling_V.cumsum(0) - falling_V
        return share_V.index_fill(0, order_V[before_V >= self.top_p], 0.0)


GREEDY = Sampling()


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    cache: Cache,
    logits_V: Tensor,
    *,
    new_tokens: int,
    sampling: Sampling = GREEDY,
) -> Iterator[int]:
    """`new_tokens` tokens, the first of them from `logits_V`; whoever has enough before does not ask for the next.

    `model` has the profile in force to which `cache` is fitted. The cache grows by a token when the next is asked for.
    """
    choose = sampling.chooser()
    token = choose(logits_V)
    yield token
    for _ in range(new_tokens - 1):
        ids_11 = torch.tensor([[token]], device=model.device)
        token = choose(model(ids_11, past_key_values=cache, use_cache=True).logits[0, -1])
        yield token


class Timed(Iterator[int]):
    """Tokens that are counted and timed: what it takes to make them, not what their reader does in between."""

    def __init__(self, tokens: Iterator[int]) -> None:
        self.count, self.seconds = 0, 0.0
        self._tokens = tokens

    def __next__(self) -> int:
        """No device is waited for: a token is a number, for which it was waited already."""
        started = time.perf_counter()
        token = next(self._tokens)
        self.seconds += time.perf_counter() - started
        self.count += 1
        return token
