"""How much each input of a block may lose, as TEAL divides it (Liu et al., arXiv:2408.14690, algorithm 1).

All start at 0. Again and again that input loses more which hurts the block's output least, a same number of weight
bytes not read each time, until the block as a whole drops its share.

Axes: B windows of a batch, T tokens, D model width.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.calibrate.distribution import InputDistribution
from tasks.calibrate.walk import Walk
from tasks.model.anatomy import Anatomy, dissect
from tasks.model.mode import evaluating
from tasks.prune.activation.apply import Group, observe, prepare, put, take_out
from tasks.prune.activation.recipe import ActivationRecipe
from tasks.prune.weight.pattern import Pattern, Unstructured

MOST = 0.99  # of an input: something has to be read
DIGITS = 6  # of a share: steps are added up, and rounding must not show in a pattern


@torch.no_grad()
def split_greedily(
    model: PreTrainedModel,
    recipe: ActivationRecipe,
    batches: Sequence[Tensor],
    step: float = 0.05,
    blocks: Sequence[float] | None = None,
) -> list[dict[str, Pattern]]:
    """The pattern of each group of each block, by its first linear; of a block's weights its share is dropped.

    `step`: the share of a block's weights of one move; `blocks`: what each drops in all, by default what the pattern
    of the recipe does. A block is looked at alone, on what the dense model gives it.
    Raises ValueError as `check_greedy`, and for a step that is not above 0.
    """
    if not 0 < step <= 1:
        raise ValueError(f"step: {step} given, valid is more than 0 and at most 1")
    anatomy = dissect(model)
    check_greedy(recipe, anatomy, blocks)
    made: list[dict[str, Pattern]] = []
    with evaluating(model):
        walk = Walk(model, anatomy, batches)
        for index, (block, groups) in enumerate(zip(anatomy.blocks, recipe.groups(anatomy), strict=True)):
            stats = [observe(walk, index, group) for group in groups]
            trial = _Trial(walk, index, block, groups, stats, replace(recipe, mitigations=()))
            target = recipe.pattern.sparsity if blocks is None else blocks[index]
            shares = _divide(trial, target, step)
            names = [next(iter(group)) for group in groups]
            made.append({name: Unstructured(share) for name, share in zip(names, shares, strict=True)})
            for _ in walk.step(index):
                pass
    return made


def check_greedy(recipe: ActivationRecipe, anatomy: Anatomy, blocks: Sequence[float] | None = None) -> None:
    """ValueError for n:m, where each block has one input to divide a share among, and for shares beyond the most."""
    if not isinstance(recipe.pattern, Unstructured):
        raise ValueError(f"pattern: {recipe.pattern} given, but a share is divided among inputs, such as 50%")
    if all(len(groups) < 2 for groups in recipe.groups(anatomy)):
        raise ValueError("greedy: of these modules each block has one input, so nothing is divided; leave it out")
    if (asked := max(blocks or [recipe.pattern.sparsity])) > MOST:
        raise ValueError(f"greedy: {asked:.1%} of a block asked, valid is at most {MOST:.0%}: an input loses no more")


class _Trial:
    """The error of a block for given shares of its inputs; `parts`: how much of its weights each input is read by."""

    def __init__(
        self,
        walk: Walk,
        index: int,
        block: nn.Module,
        groups: Sequence[Group],
        stats: Sequence[InputDistribution],
        recipe: ActivationRecipe,
    ) -> None:
        self.walk, self.index, self.block = walk, index, block
        self.groups, self.stats, self.recipe = groups, stats, recipe
        sizes = [sum(each.weight.numel() for each in group.values()) for group in groups]
        self.parts = [size / sum(sizes) for size in sizes]
        self.dense = [walk.output(index, batch) for batch in range(len(walk.hidden))]

    def error(self, shares: Sequence[float]) -> float:
        """||sparse − dense||² over all tokens."""
        there = []
        try:
            for group, stat, share in zip(self.groups, self.stats, shares, strict=True):
                if share:
                    pattern = Unstructured(share)
                    put(self.block, group, self.recipe, pattern, prepare(group, self.recipe, pattern, stat))
                    there.append(group)
            outputs = (self.walk.output(self.index, batch) for batch in range(len(self.dense)))
            differences = (made - dense for made, dense in zip(outputs, self.dense, strict=True))
            return sum(each.float().square().sum().item() for each in differences)
        finally:
            for group in there:
                take_out(self.block, group)


def _divide(trial: _Trial, target: float, step: float) -> list[float]:
    """The share that each input loses, `target` of the weights in all."""
    shares, dropped = [0.0] * len(trial.parts), 0.0
    while dropped < target - 10**-DIGITS:
        move = min(step, target - dropped)
        options = []
        for place, part in enumerate(trial.parts):
            share = min(shares[place] + move / part, MOST)
            if share > shares[place]:
                raised = [*shares[:place], round(share, DIGITS), *shares[place + 1 :]]
                options.append((trial.error(raised), raised))
        if not options:
            break  # all inputs are at the most they can lose
        _, shares = min(options)
        dropped = sum(share * part for share, part in zip(shares, trial.parts, strict=True))
    return shares
