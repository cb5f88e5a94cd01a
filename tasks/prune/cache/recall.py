"""Long-context recall: whether a model still knows a passage that it has read long ago, behind what a budget keeps.

A passage, then other text, then the beginning of the passage again: a model that looks back can copy the remainder. So
what the loss of the remainder rises by is what was forgotten.

Axes: B prompts, T tokens of a prompt, R of the remainder, V words.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from tasks.model.mode import evaluating
from tasks.prune.cache.budget import KVBudget
from tasks.prune.cache.budgeted_cache import budgeted_cache


@dataclass(frozen=True, kw_only=True, eq=False)
class Recall:
    """Each prompt ends with the first words of its passage; the `remainder` is how the passage goes on."""

    prompt_BT: Tensor
    remainder_BR: Tensor


def recall_of(
    ids: Tensor, *, prompts: int = 16, passage: int = 32, cue: int = 8, between: int = 128, seed: int = 0
) -> Recall:
    """Draw passages and the text between from `ids`, 1-D tokens of a text; nothing between is of its passage.

    `passage`, `cue` (its first tokens, which are given again) and `between` are numbers of tokens. Raises ValueError
    for a cue that is not a part of the passage, and for a text that is shorter than both together.
    """
    if not 1 <= cue < passage:
        raise ValueError(f"cue: {cue} given, valid is 1 to {passage - 1}, a part of the passage")
    if len(ids) < passage + between:
        raise ValueError(f"ids: {len(ids)} tokens given, valid is {passage + between} or more")
    generator = torch.Generator().manual_seed(seed)
    drawn = [_drawn(ids, passage, between, generator) for _ in range(prompts)]
    return Recall(
        prompt_BT=torch.stack([torch.cat([first, other, first[:cue]]) for first, other in drawn]),
        remainder_BR=torch.stack([first[cue:] for first, _ in drawn]),
    )


@torch.inference_mode()
def recall_loss(model: PreTrainedModel, recall: Recall, budget: KVBudget | None = None) -> float:
    """Nats per token of the remainders, read token after token behind the prompts' cache; None keeps all of it.

    The first token of each counts, too, though the whole prompt predicts it whatever the budget.
    """
    prompt_BT, remainder_BR = recall.prompt_BT.to(model.device), recall.remainder_BR.to(model.device)
    plain = DynamicCache(config=model.config)
    with evaluating(model), budgeted_cache(model, budget) if budget else nullcontext(plain) as cache:
        first_B1V = model(prompt_BT, past_key_values=cache, use_cache=True).logits[:, -1:]
        later_BRV = model(remainder_BR[:, :-1], past_key_values=cache, use_cache=True).logits
    logits_BRV = torch.cat([first_B1V, later_BRV], dim=1).float()
    return nn.functional.cross_entropy(logits_BRV.flatten(0, 1), remainder_BR.flatten()).item()


def _drawn(ids: Tensor, passage: int, between: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A passage, and other text: a piece of what stands before it and behind it, taken as one."""
    start = int(torch.randint(len(ids) - passage + 1, (), generator=generator))
    others = torch.cat([ids[:start], ids[start + passage :]])
    other = int(torch.randint(len(others) - between + 1, (), generator=generator))
    return ids[start : start + passage], others[other : other + between]
