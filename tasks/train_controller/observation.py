"""What the controller sees before it decides: the machine and the prompt, as numbers between 0 and 1.

Axes: F features.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

LONG_PROMPT, HARD_PROMPT = 200, 50  # tokens, perplexity: what counts as one (CASRAP)


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Shares of what the machine has, each from 0 to 1; `battery` is 1 on mains."""

    cpu_use: float
    memory_free: float
    gpu_use: float = 0.0
    gpu_memory_free: float = 0.0
    has_gpu: float = 0.0
    battery: float = 1.0


@dataclass(frozen=True, kw_only=True)
class PromptFeatures:
    """Of a prompt as the uncut model reads it: all but `tokens` and `ppl` lie between 0 and 1.

    Of a long prompt `ppl`, `worst` and `first_block` are those of its last tokens (`describe_prompt` says how many).
    """

    tokens: int
    ppl: float  # of the prompt itself; 1.0 where it is a single token
    entropy: float  # of the first token to be written, as a share of ln(vocabulary)
    confidence: float  # the probability of the likeliest first token
    worst: float  # the 90 % quantile of the prompt's token losses, over ln(vocabulary), at most 1
    first_block: float  # what the first block changes: (1 - cos(in, out)) / 2, the mean over its tokens

    @property
    def complexity(self) -> float:
        """0.6 min(1, tokens / 200) + 0.4 min(1, ppl / 50) [CASRAP]."""
        return 0.6 * min(1.0, self.tokens / LONG_PROMPT) + 0.4 * min(1.0, self.ppl / HARD_PROMPT)


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The whole state of one decision."""

    hardware: Hardware
    prompt: PromptFeatures

    def as_dict(self) -> dict[str, float]:
        """Feature -> its value, bounded to 0 to 1; the order is that of `FEATURES`."""
        prompt = {name: value for name, value in vars(self.prompt).items() if name not in ("tokens", "ppl")}
        shares = vars(self.hardware) | {
            "prompt_tokens": self.prompt.tokens / LONG_PROMPT,
            "prompt_ppl": self.prompt.ppl / HARD_PROMPT,
            "complexity": self.prompt.complexity,
        }
        return {name: min(1.0, max(0.0, value)) for name, value in (shares | prompt).items()}

    def as_vector(self) -> Tensor:
        """float32 (F,)."""
        return torch.tensor([*self.as_dict().values()], dtype=torch.float32)


HARDWARE_FEATURES = tuple(each.name for each in fields(Hardware))
PROMPT_FEATURES = (
    "prompt_tokens",
    "prompt_ppl",
    "complexity",
    *(each.name for each in fields(PromptFeatures) if each.name not in ("tokens", "ppl")),
)
FEATURES = HARDWARE_FEATURES + PROMPT_FEATURES
