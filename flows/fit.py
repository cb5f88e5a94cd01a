"""Whether a model can be treated as a flow's words say, asked of the model itself: once for each content."""

from functools import cache
from pathlib import Path

from tasks.data.length import check_enough, may_be_short
from tasks.data.sources import identity, read
from tasks.data.tokens import encode
from tasks.evaluate.task import fits
from tasks.model.anatomy import blocks_without_weights, dissect, linears_of
from tasks.model.load import check_tokenizer, load_config, load_model, load_tokenizer
from tasks.model.modules import check_modules, those_of
from tasks.prune.activation.budget import patterns_of_blocks
from tasks.prune.activation.greedy import check_greedy
from tasks.prune.activation.recipe import ActivationRecipe
from tasks.prune.allocation import Allocation
from tasks.prune.allocators import Allocator, Given
from tasks.prune.structure.cut import Cut, check_cut
from tasks.prune.structure.named_cuts import NamedCut, check_cuts, usual_cuts
from tasks.prune.weight.budget import attention_linears, patterns_for
from tasks.prune.weight.recipe import Recipe
from tasks.train_controller.allocators.search import Searcher
from tasks.train_controller.allocators.unit_rungs import unit_problem
from tasks.train_controller.allocators.weight_rungs import weight_problem


def check_length(content: str, folder: Path, source: str, role: str, window: int, samples: int | None = None) -> None:
    """A text in a file has `samples` windows (None: one). A long one is not encoded to tell it."""
    if may_be_short(source, window, samples):
        tokens = _count_tokens(content, folder, source, role, identity(source, role))
        check_enough(source, role, tokens, window, samples)


@cache
def check_fit(content: str, folder: Path, recipe: Recipe, allocator: Allocator | Searcher) -> None:
    """The tokenizer fits the model, the recipe each linear, given sparsities the blocks, and what is to go a search.

    Once for every `content`.
    """
    config, pattern = load_config(folder), recipe.pattern
    check_tokenizer(load_tokenizer(folder), config)
    where, modules = blocks_without_weights(config)
    check_modules(recipe.modules, (name for block in modules for name in linears_of(block)))
    blocks = [those_of(linears_of(block), recipe.modules) for block in modules]
    for index, linears in enumerate(blocks):
        for name, linear in linears.items():
            if not pattern.divides(linear.in_features):
                said = f"the {linear.in_features} inputs of {where}.{index}.{name}"
                raise ValueError(f"pattern: {pattern} does not divide {said}")
    attention = [attention_linears(block) for block in modules]
    allocation = Allocation(sparsities=(pattern.sparsity,) * len(blocks))
    if isinstance(allocator, Given):
        allocation = Allocation(sparsities=allocator.sparsities, ffn=allocator.ffn)
    if isinstance(allocator, Searcher):
        allocator.check(weight_problem(pattern, blocks, attention))
        if not fits(folder, "cpu"):
            raise ValueError(
                f"model: {folder} takes more than half of the memory that is free; a search holds it whole"
            )
    patterns = patterns_for(allocation, pattern, blocks, attention)
    if recipe.low_rank is not None:
        recipe.low_rank.check_blocks(blocks, patterns)


@cache
def check_units(content: str, folder: Path, cut: Cut, searcher: Searcher | None) -> None:
    """The tokenizer fits the model, which can be cut so, or searched by the `searcher`. Once for every `content`."""
    check_tokenizer(load_tokenizer(folder), load_config(folder))
    if not fits(folder, "cpu"):
        raise ValueError(f"model: {folder} takes more than half of the memory that is free; slice holds it whole")
    if searcher is None:
        check_cut(load_model(folder), cut)
    else:
        searcher.check(unit_problem(load_model(folder), cut))


@cache
def check_inputs(content: str, folder: Path, recipe: ActivationRecipe, allocator: Allocator, greedy: bool) -> None:
    """The tokenizer fits the model, which has the linears that the recipe names, and given sparsities its blocks.

    Once for every `content`.
    """
    check_tokenizer(load_tokenizer(folder), load_config(folder))
    if not fits(folder, "cpu"):
        raise ValueError(f"model: {folder} takes more than half of the memory that is free; activation holds it whole")
    anatomy = dissect(load_model(folder))
    shares: tuple[float, ...] = (recipe.pattern.sparsity,) * len(anatomy.blocks)
    ffn = None
    if isinstance(allocator, Given):
        shares, ffn = allocator.sparsities, allocator.ffn
    patterns_of_blocks(recipe, anatomy, Allocation(sparsities=shares, ffn=ffn))
    if greedy:
        check_greedy(recipe, anatomy, [share + getattr(allocator, "spread", 0.0) for share in shares])


@cache
def fitting_cuts(content: str, folder: Path, cuts: tuple[NamedCut, ...], round_to: int) -> tuple[NamedCut, ...]:
    """`cuts`, which the model can take and which all differ; or of the usual ones those that it can."""
    check_tokenizer(load_tokenizer(folder), load_config(folder))
    if not fits(folder, "cpu"):
        raise ValueError(f"model: {folder} takes more than half of the memory that is free; profiles holds it whole")
    model = load_model(folder)
    check_cuts(model, cuts, round_to=round_to)
    return cuts or usual_cuts(model, round_to=round_to)


@cache
def _count_tokens(content: str, folder: Path, source: str, role: str, text: str) -> int:
    """Of a source with the model's tokenizer. Once for every `content` of the model and identity of the `text`."""
    return len(encode(read(source, role).texts, load_tokenizer(folder)))
