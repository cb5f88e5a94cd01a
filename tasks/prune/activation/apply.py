"""Making the inputs of a model sparse: calibrate group by group on the sparse stream, and install, under `with`.

Each group is calibrated on what it will really read: the groups before it are sparse already. That takes a forward of a
block for every group, and gives thresholds that hold on new text.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.calibrate.distribution import InputDistribution
from tasks.calibrate.walk import Walk, check_walk
from tasks.model.anatomy import Anatomy, before_each, dissect
from tasks.model.mode import evaluating
from tasks.prune.activation.recipe import ActivationRecipe
from tasks.prune.activation.sparse_input import SparseInput, SparseInputs, SparseLinear, split_mitigations
from tasks.prune.weight.pattern import Pattern

SOURCES = "sparse_inputs"  # the attribute of a block that holds its SparseInput modules

Group = Mapping[str, nn.Linear]  # those that read one input, by their names in the block
Patterns = Sequence[Pattern] | Sequence[Mapping[str, Pattern]]  # of each block; or of each group, by its first linear


@dataclass(frozen=True)
class Installed:
    """What was put into a model, to be taken out again: blocks, and groups of their own linears by name.

    `anatomy` is that of the model without it.
    """

    model: PreTrainedModel
    anatomy: Anatomy
    groups: list[tuple[nn.Module, Group]]

    def remove(self) -> None:
        while self.groups:
            take_out(*self.groups.pop())


@contextmanager
def sparse_inputs(
    model: PreTrainedModel,
    recipe: ActivationRecipe,
    batches: Sequence[Tensor],
    patterns: Patterns | None = None,
) -> Iterator[Installed]:
    """Within, the chosen linears of `model` read sparse inputs; then they are the model's own again.

    `batches`: calibration ids, (windows, tokens) each. `patterns`: of each block or group; None for the recipe's.
    Raises ValueError as `ActivationRecipe.groups` and `patterns_of`.
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
    patterns: Patterns | None = None,
) -> Installed:
    """As `sparse_inputs`, for good. Where it fails, the model is what it was.

    A recipe that does not calibrate runs no forward but that of a short check.
    """
    anatomy = dissect(model)
    groups = recipe.groups(anatomy)
    of_block = patterns_of(recipe, patterns, groups)
    check_walk(model, anatomy, batches[0])
    installed = Installed(model, anatomy, [])
    try:
        with evaluating(model):
            walk = Walk(model, anatomy, batches) if recipe.calibrates else None
            for index, block in enumerate(anatomy.blocks):
                for group in groups[index]:
                    pattern = of_block[index][next(iter(group))]
                    if pattern.sparsity:  # else everything is kept: the linears stay as they are
                        tensors = prepare(group, recipe, pattern, _stat(walk, index, group))
                        if walk is not None and recipe.centres:
                            tensors = _centred(walk, index, group, recipe, pattern, tensors)
                        put(block, group, recipe, pattern, tensors)
                        installed.groups.append((block, group))
                for _ in walk.step(index) if walk is not None else ():
                    pass
    except BaseException:
        installed.remove()
        raise
    return installed


@dataclass(frozen=True)
class Tensors:
    """What the methods need of one group: the facts of the selection, and the tensors of the mitigations in order."""

    facts: dict[str, Tensor]
    on_input: list[dict[str, Tensor]]
    on_output: dict[str, list[dict[str, Tensor]]]  # of each linear


def prepare(group: Group, recipe: ActivationRecipe, pattern: Pattern, stat: InputDistribution) -> Tensors:
    on_input, on_output = split_mitigations(recipe.mitigations)
    weight_OI = torch.cat([each.weight.detach() for each in group.values()])
    return Tensors(
        facts=recipe.selection.prepare(weight_OI, stat, pattern),
        on_input=[each.prepare(weight_OI, stat) for each in on_input],
        on_output={
            name: [each.prepare(linear.weight.detach(), stat) for each in on_output] for name, linear in group.items()
        },
    )


def put(block: nn.Module, group: Group, recipe: ActivationRecipe, pattern: Pattern, tensors: Tensors) -> None:
    """Let the linears of a group read sparse inputs."""
    source, (_, on_output) = _source(group, recipe, pattern, tensors), split_mitigations(recipe.mitigations)
    if not hasattr(block, SOURCES):
        block.register_module(SOURCES, SparseInputs(block))
    block.get_submodule(SOURCES).add_module(source_name(group), source)
    for name, original in group.items():
        block.set_submodule(name, SparseLinear(original, source, on_output, tensors.on_output[name]))


def _source(group: Group, recipe: ActivationRecipe, pattern: Pattern, tensors: Tensors) -> SparseInput:
    on_input, _ = split_mitigations(recipe.mitigations)
    return SparseInput(recipe.selection, pattern, tensors.facts, on_input, tensors.on_input, len(group), recipe.prefill)


def _centred(
    walk: Walk, index: int, group: Group, recipe: ActivationRecipe, pattern: Pattern, tensors: Tensors
) -> Tensors:
    """`tensors` with a threshold of what it is compared with, which is known when the mitigations are."""
    stat = observe(walk, index, group, _source(group, recipe, pattern, tensors).centred)
    return replace(tensors, facts=prepare(group, recipe, pattern, stat).facts)


def take_out(block: nn.Module, group: Group) -> None:
    """Let them read whole inputs again."""
    for name, original in group.items():
        block.set_submodule(name, original)
    sources = getattr(block, SOURCES)
    del sources[source_name(group)]
    if not sources:
        sources.remove()
        delattr(block, SOURCES)


def source_name(group: Group) -> str:
    """Of what a group reads: its first linear's; a module's name has no dots."""
    return next(iter(group)).replace(".", "/")


def observe(
    walk: Walk, index: int, group: Group, change: Callable[[Tensor], Tensor] = lambda x: x
) -> InputDistribution:
    """The distribution of the input of a group, as the blocks are now; or of what `change` makes of it."""
    first = dict([next(iter(group.items()))])
    original = next(iter(group.values()))
    stat = InputDistribution(original.in_features, original.weight.device)
    with before_each(first, lambda _, x: stat.see(change(x))):
        for batch in range(len(walk.hidden)):
            walk.output(index, batch)
    return stat


def _stat(walk: Walk | None, index: int, group: Group) -> InputDistribution:
    """One that has seen nothing, and says so where it is asked, of a recipe that does not calibrate."""
    if walk is not None:
        return observe(walk, index, group)
    original = next(iter(group.values()))
    return InputDistribution(original.in_features, original.weight.device)


def patterns_of(
    recipe: ActivationRecipe, patterns: Patterns | None, groups: Sequence[Sequence[Group]]
) -> list[dict[str, Pattern]]:
    """Of each block the pattern of each group, by its first linear. ValueError where they do not fit the groups."""
    given: list[Pattern | Mapping[str, Pattern]] = [recipe.pattern] * len(groups) if patterns is None else [*patterns]
    if len(given) != len(groups):
        raise ValueError(f"patterns: {len(given)} given, the model has {len(groups)} blocks")
    made = []
    for index, (each, of_block) in enumerate(zip(given, groups, strict=True)):
        firsts = [next(iter(group)) for group in of_block]
        made.append(dict.fromkeys(firsts, each) if isinstance(each, Pattern) else dict(each))
        if {*made[-1]} != {*firsts}:
            raise ValueError(f"patterns: of {', '.join(made[-1])} given, valid is one for each of {', '.join(firsts)}")
        for first, group in zip(firsts, of_block, strict=True):
            recipe.check_pattern(made[-1][first], index, group)
    return made
