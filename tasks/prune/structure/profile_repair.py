"""A profile whose readers are fitted to what its cut leaves them (tasks.prune.structure.apply)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.model.anatomy import find_blocks, linears_of
from tasks.model.units import units_of
from tasks.prune.structure.apply import slice_model
from tasks.prune.structure.depth import slice_blocks
from tasks.prune.structure.profiles import Profile
from tasks.prune.structure.slice import Slice


def repaired_profile(
    model: PreTrainedModel,
    profile: Profile,
    batches: Sequence[Tensor],
    *,
    drift: float = 0.5,
    device: torch.device | str | None = None,
    settled: bool = True,
) -> Profile:
    """`profile`, with the weights of every reader whose inputs it cuts. `model` has to be uncut, and is so again.

    What the readers are fitted to is the model without the blocks, attentions and FFNs that the profile removes.
    Arguments and errors as of `slice_model`.
    """
    units, made = units_of(model), list[Slice]()
    layers, blocks = find_blocks(model)
    left = [block for block in range(len(blocks)) if block not in profile.blocks]
    kept = {left.index(block): kinds for block, kinds in profile.kept.items()}
    weights = {}
    with slice_blocks(model, blocks=profile.blocks, attention=profile.attention, ffn=profile.ffn):
        try:
            slice_model(
                model,
                kept,
                batches,
                drift=drift,
                device=device,
                settled=settled,
                on_block=lambda _, slices: made.extend(slices),
            )
            for block, kinds in profile.kept.items():
                for kind in kinds:
                    reader = units[block].of(kind).reader
                    weight = linears_of(blocks[block])[reader].weight
                    weights[f"{layers}.{block}.{reader}.weight"] = weight.detach().clone()
        finally:
            for each in reversed(made):
                each.restore()
    return replace(profile, weights=weights)
