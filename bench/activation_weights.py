"""The other side of the comparison: weights of the same linears pruned by the same pattern, their inputs whole."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.calibrate.walk import Walk
from tasks.model.anatomy import before_each, dissect
from tasks.model.mode import evaluating
from tasks.prune.activation.recipe import ActivationRecipe
from tasks.prune.weight.pruner import Pruner


@torch.no_grad()
def prune_weights(model: PreTrainedModel, pruner: Pruner, recipe: ActivationRecipe, batches: Sequence[Tensor]) -> None:
    """Prune the linears that `recipe` names by its pattern, block by block, in place; a block is observed whole first.

    Of all linears that is what tasks.prune.weight.apply.prune_model does, which prunes no fewer.
    """
    anatomy = dissect(model)
    with evaluating(model):
        walk = Walk(model, anatomy, batches)
        for index, groups in enumerate(recipe.groups(anatomy)):
            firsts = dict(next(iter(group.items())) for group in groups)
            kind = pruner.observes
            stats = {} if kind is None else {name: kind(each.in_features, "cpu") for name, each in firsts.items()}
            if stats:
                with before_each(firsts, lambda name, x: stats[name].see(x)):  # noqa: B023 - within this block
                    for batch in range(len(walk.hidden)):
                        walk.output(index, batch)
            for group in groups:
                stat = stats.get(next(iter(group)))
                for linear in group.values():
                    linear.weight.copy_(pruner.prune(linear.weight, stat, recipe.pattern))
            for _ in walk.step(index):
                pass
