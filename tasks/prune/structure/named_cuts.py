"""The profiles between which CASRAP's controller chooses: fewer head groups, fewer channels, fewer blocks.

Axes: U units of one kind in all blocks together.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.prune.structure.choose import choose_units
from tasks.prune.structure.profiles import Profile

SHARES = (0.1, 0.2, 0.3)


def named_cuts(
    model: PreTrainedModel,
    scores: Sequence[Mapping[str, Tensor]],
    *,
    shares: Sequence[float] = SHARES,
    blocks: Sequence[int] = (1,),
    round_to: int = 64,
) -> list[Profile]:
    """For each share one cut of head groups and one of channels, for each number in `blocks` one of so many blocks.

    `scores`: of each block, by kind, with "blocks" as one (tasks.calibrate.importance); of a kind without scores there
    is no cut. Head groups are few in a block: the share is of all blocks together, the lowest go, and one stays in each
    block. Channels lose the share in every block.

    Raises ValueError for scores that do not fit and for a share that is less than a step, as `choose_units`.
    """
    cuts = []
    for share in shares if "head_groups" in scores[0] else ():
        kept = choose_units(model, scores, {"head_groups": _shares_of_blocks(scores, "head_groups", share)}).kept
        cuts.append(Profile(name=f"head groups -{share:.0%}", kept=kept))
    for share in shares if "channels" in scores[0] else ():
        kept = choose_units(model, scores, {"channels": share}, round_to=round_to).kept
        cuts.append(Profile(name=f"channels -{share:.0%}", kept=kept))
    for number in blocks if "blocks" in scores[0] else ():
        least_first = torch.cat([of_block["blocks"] for of_block in scores]).argsort(stable=True)
        cuts.append(Profile(name=f"blocks -{number}", blocks=sorted(least_first[:number].tolist())))
    return cuts


def _shares_of_blocks(scores: Sequence[Mapping[str, Tensor]], kind: str, share: float) -> list[float]:
    """What goes of each block where the units of the lowest scores of all blocks go, but the best of a block stays."""
    counts = [len(of_block[kind]) for of_block in scores]
    best = [of_block[kind].argmax().item() for of_block in scores]
    every = [
        (score, block)
        for block, of_block in enumerate(scores)
        for unit, score in enumerate(of_block[kind].tolist())
        if unit != best[block]
    ]
    going = [block for _, block in sorted(every)[: round(share * sum(counts))]]
    return [going.count(block) / count for block, count in enumerate(counts)]
