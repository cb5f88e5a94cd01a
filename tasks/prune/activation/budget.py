"""An allocation of sparse inputs, arrived: the pattern of every input, so that all together drop as much as one would.

An input that several linears share is one item, as wide as they are high together: dropping one of its numbers spares
a row of the weights of all of them.
"""

from collections.abc import Mapping, Sequence

from torch import nn

from tasks.model.anatomy import Anatomy
from tasks.prune.activation.recipe import ActivationRecipe
from tasks.prune.allocation import Allocation
from tasks.prune.weight.budget import attention_linears, patterns_for
from tasks.prune.weight.pattern import Pattern


def patterns_of_blocks(recipe: ActivationRecipe, anatomy: Anatomy, allocation: Allocation) -> list[dict[str, Pattern]]:
    """Of each block the pattern of each input that `recipe` names, by the first linear that reads it.

    A block (or its attention, or its FFN) drops its share of those of its weights that the recipe names, within one
    unit: a number of an input, or of n:m one of every m. Raises ValueError as `patterns_for`.
    """
    groups = recipe.groups(anatomy)
    inputs = [{next(iter(group)): _as_one(group) for group in of_block} for of_block in groups]
    attention = [attention_linears(block) for block in anatomy.blocks]
    for index, (of_block, names) in enumerate(zip(groups, attention, strict=True)):
        for group in of_block if allocation.ffn is not None else ():
            if len({name in names for name in group}) > 1:
                both = f"block {index} reads one input in both, by {', '.join(group)}"
                raise ValueError(f"allocation: attention and FFN apart given, but {both}; give one share of each block")
    return patterns_for(allocation, recipe.pattern, inputs, attention)


def share_of(groups: Sequence[Mapping[str, nn.Linear]], patterns: Mapping[str, Pattern]) -> float:
    """Of the weights of a block's groups, the share that these patterns drop, 0 to 1."""
    sizes = {next(iter(group)): sum(each.weight.numel() for each in group.values()) for group in groups}
    dropped = sum(patterns[name].sparsity * size for name, size in sizes.items())
    return dropped / (sum(sizes.values()) or 1)  # a block that was cut may have none of these linears


def _as_one(group: Mapping[str, nn.Linear]) -> nn.Linear:
    """A linear of their width and of all their outputs, without weights in memory."""
    width = next(iter(group.values())).in_features
    return nn.Linear(width, sum(each.out_features for each in group.values()), bias=False, device="meta")
