"""Making the inputs of a model sparse: calibrate group by group on the sparse stream, and install, under `with`.

Each group is calibrated on what it will really read: the groups before it are sparse already. That takes a forward of a
block for every group, and gives thresholds that hold on new text.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.calibrate.distribution import InputDistribution
from tasks.calibrate.walk import Walk, check_walk
from tasks.model.anatomy import Anatomy, before_each, dissect
from tasks.model.mode import evaluating
from tasks.prune.activation.recipe import ActivationRecipe
from tasks.prune.activation.sparse_input import SparseInput, SparseLinear, split_mitigations
from tasks.prune.weight.pattern import Pattern

SOURCES = "sparse_inputs"  # the attribute of a block that holds its SparseInput modules


@dataclass(frozen=True)
class Installed:
    """What was put into a model, to be taken out again: blocks and the names and originals of their linears.

    `anatomy` is that of the model without it.
    """

    model: PreTrainedModel
    anatomy: Anatomy
    originals: list[tuple[nn.Module, dict[str, nn.Linear]]]

    def remove(self) -> None:
        for block, linears in self.originals:
            for name, original in linears.items():
                block.set_submodule(name, original)
            if hasattr(block, SOURCES):
                delattr(block, SOURCES)
        self.originals.clear()


@contextmanager
def sparse_inputs(
    model: PreTrainedModel,
    recipe: ActivationRecipe,
    batches: Sequence[Tensor],
    patterns: Sequence[Pattern] | None = None,
) -> Iterator[Installed]:
    """Within, the chosen linears of `model` read sparse inputs; then they are the model's own again.

    `batches`: calibration ids, (windows, tokens) each. `patterns`: of each block; None for the recipe's everywhere.
    Raises ValueError as `ActivationRecipe.groups`, and for as many patterns as there are no blocks.
    """
    installed = install(model, recipe, batches, patterns)
    try:
        yield installed
    finally:
        installed.remove()


@torch.no_grad()
def install(
    model: PreTrainedModel,
    recipe: ActivationRecipe,
    batches: Sequence[Tensor],
    patterns: Sequence[Pattern] | None = None,
) -> Installed:
    """As `sparse_inputs`, for good. Where it fails, the model is what it was."""
    anatomy = dissect(model)
    groups = recipe.groups(anatomy)
    of_block = _patterns(recipe, patterns, len(groups))
    check_walk(model, anatomy, batches[0])
    installed = Installed(model, anatomy, [])
    try:
        with evaluating(model):
            walk = Walk(model, anatomy, batches)
            for index, block in enumerate(anatomy.blocks):
                for group in groups[index]:
                    stat = _observe(walk, index, group)
                    installed.originals.append((block, put(block, group, recipe, of_block[index], stat)))
                for _ in walk.step(index):
                    pass
    except BaseException:
        installed.remove()
        raise
    return installed


def put(
    block: nn.Module,
    group: dict[str, nn.Linear],
    recipe: ActivationRecipe,
    pattern: Pattern,
    stat: InputDistribution,
) -> dict[str, nn.Linear]:
    """Let the linears of a group read sparse inputs; those that did not, by name. None, where everything is kept."""
    if not pattern.sparsity:
        return {}
    on_input, on_output = split_mitigations(recipe.mitigations)
    weight_OI = torch.cat([each.weight.detach() for each in group.values()])
    source = SparseInput(recipe.selection, pattern, on_input, weight_OI, stat, len(group), recipe.prefill)
    if not hasattr(block, SOURCES):
        block.register_module(SOURCES, nn.ModuleDict())
    block.get_submodule(SOURCES).add_module(next(iter(group)).replace(".", "/"), source)
    for name, original in group.items():
        block.set_submodule(name, SparseLinear(original, source, on_output, stat))
    return dict(group)


def _observe(walk: Walk, index: int, group: dict[str, nn.Linear]) -> InputDistribution:
    """The distribution of the input of a group, as block `index` is now."""
    first = dict([next(iter(group.items()))])
    original = next(iter(group.values()))
    stat = InputDistribution(original.in_features, original.weight.device)
    with before_each(first, lambda _, x: stat.see(x)):
        for batch in range(len(walk.hidden)):
            walk.output(index, batch)
    return stat


def _patterns(recipe: ActivationRecipe, patterns: Sequence[Pattern] | None, blocks: int) -> Sequence[Pattern]:
    given = [recipe.pattern] * blocks if patterns is None else list(patterns)
    if len(given) != blocks:
        raise ValueError(f"patterns: {len(given)} given, the model has {blocks} blocks")
    for pattern in given:
        recipe.selection.check(pattern)
    return given
