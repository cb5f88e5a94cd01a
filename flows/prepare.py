"""What every flow checks before any work: words that cannot be meant fail here, in one line that names the field."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from transformers import PreTrainedConfig

from flows.choices import Oneshot
from tasks.data.sources import check_source
from tasks.evaluate.task import check_speed
from tasks.handles import Checkpoint
from tasks.model.anatomy import prunable, prunable_blocks
from tasks.model.load import (
    check_folder,
    check_tokenizer,
    context_of,
    fingerprint,
    load_config,
    load_tokenizer,
    resolve,
    weight_bytes,
)
from tasks.prune.allocation import Allocation
from tasks.prune.allocators import Allocator, Given
from tasks.prune.weight.budget import patterns_for
from tasks.prune.weight.recipe import Recipe
from tasks.record import home

USUAL_WINDOW = 2048


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A `Oneshot` with everything looked up: what the stages take."""

    name: str  # of the model, short
    model: Checkpoint
    recipe: Recipe
    allocator: Allocator
    window: int
    device: str


def prepare(parameters: Oneshot) -> Prepared:
    """Look up and check everything that a run names. Raises ValueError in one line; reads the weights once."""
    folder = resolve(parameters.model)
    check_folder(folder)
    check_source(parameters.calibration, "calibration")
    check_source(parameters.evaluation, "evaluation")
    home.check_writable(min_free_bytes=4 * weight_bytes(folder))
    recipe, allocator = parameters.recipe(), parameters.allocation.build()
    config = load_config(folder)
    device = _device(parameters.device)
    if parameters.speed:
        check_speed(folder, device)
    content = fingerprint(folder)
    _check_fit(content, folder, recipe, allocator)
    return Prepared(
        name=folder.resolve().name,
        model=Checkpoint(hash=content, folder=str(folder.absolute())),
        recipe=recipe,
        allocator=allocator,
        window=_window(parameters.window, config),
        device=device,
    )


@cache
def _check_fit(content: str, folder: Path, recipe: Recipe, allocator: Allocator) -> None:
    """The tokenizer fits the model, the recipe each linear, given sparsities the blocks. Once for every `content`."""
    config, pattern = load_config(folder), recipe.pattern
    check_tokenizer(load_tokenizer(folder), config)
    for linear, module in prunable(config).items():
        if not pattern.divides(module.in_features):
            raise ValueError(f"pattern: {pattern} does not divide the {module.in_features} inputs of {linear}")
    blocks = prunable_blocks(config)
    sparsities = allocator.sparsities if isinstance(allocator, Given) else (pattern.sparsity,) * len(blocks)
    patterns = patterns_for(Allocation(sparsities=sparsities), pattern, blocks)
    if recipe.low_rank is not None:
        recipe.low_rank.check_blocks(blocks, patterns)


def _window(asked: int | None, config: PreTrainedConfig) -> int:
    context = context_of(config)
    if asked is None:
        return min(USUAL_WINDOW, context or USUAL_WINDOW)
    if context is not None and asked > context:
        raise ValueError(f"window: {asked} is longer than the model's context; at most {context}")
    return asked


def _device(asked: str) -> str:
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device: {asked} is not available here; use cpu or auto")
    return asked
