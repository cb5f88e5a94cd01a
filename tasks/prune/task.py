"""The door of the prune room: the stages `prune` and `pack`."""

import shutil
from collections import Counter

from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedConfig

from tasks.caching import cache_key
from tasks.calibrate.batches import batches_of
from tasks.calibrate.memory import give_back
from tasks.calibrate.spill import Spill
from tasks.handles import Checkpoint, Packed, Pruned, Tokens
from tasks.model.anatomy import blocks_without_weights, linears_of
from tasks.model.load import load_config
from tasks.model.mapped import mapped_model
from tasks.model.modules import ALL, those_of
from tasks.model.shards import save_parts
from tasks.progress import progress
from tasks.prune.allocation import Allocation
from tasks.prune.allocators import Allocator
from tasks.prune.journal import Journal
from tasks.prune.pack import pack_checkpoint
from tasks.prune.weight.apply import prune_blocks
from tasks.prune.weight.budget import attention_linears, patterns_for
from tasks.prune.weight.pattern import Pattern
from tasks.prune.weight.recipe import Recipe
from tasks.record import home
from tasks.record.unfinished import workplace
from tasks.stage import open_folder, stage


@stage()
def allocate(model: Checkpoint, calibration: Tokens, allocator: Allocator, pattern: Pattern, device: str) -> Allocation:
    """How much of each block goes, where `pattern` says how much in all."""
    with mapped_model(open_folder(model)) as network:
        return allocator.allocate(network, pattern, _batches(calibration, device), device)


@stage()
def prune(model: Checkpoint, calibration: Tokens, recipe: Recipe, allocation: Allocation | None, device: str) -> Pruned:
    """Prune `model` block by block on the calibration windows; the result is a folder that transformers loads.

    One block is in memory at a time. Killed, it goes on from its journal when it is called with the same inputs.
    """
    inputs = {"model": model, "calibration": calibration, "recipe": recipe, "allocation": allocation, "device": device}
    folder, batches = open_folder(model), _batches(calibration, device)
    with workplace(cache_key(prune.fn)(None, inputs)) as place, mapped_model(folder) as network:
        journal, spill = Journal(place), Spill(folder=place)
        blocks, done = network.config.get_text_config().num_hidden_layers, len(journal.finished)
        with progress(f"{recipe} {recipe.pattern}", total=blocks, done=done) as reach:
            steps = prune_blocks(network, recipe, batches, allocation, device=device, journal=journal, spill=spill)
            for row, _ in steps:
                reach(row.block + 1)
        with home.store("checkpoints") as draft:
            save_parts(network, journal.weights, folder, draft.path)
            for file in journal.beside:
                shutil.copyfile(file, draft.path / file.name)
    return Pruned(
        checkpoint=Checkpoint(hash=draft.stored.hash, folder=draft.stored.folder),
        blocks=tuple(row for row, _ in journal.finished),
        linears=tuple(linear for _, linears in journal.finished for linear in linears),
    )


@stage()
def pack(
    checkpoint: Checkpoint, pattern: Pattern, allocation: Allocation | None, modules: tuple[str, ...] = ALL
) -> Packed:
    """Store the pruned linears, which `modules` name, as kept values and their positions; other tensors as they are."""
    with home.store("packed") as draft:
        folder = open_folder(checkpoint)
        patterns = _patterns(load_config(folder), pattern, allocation, modules)
        summary = pack_checkpoint(folder, draft.path, patterns)
        give_back()
    return Packed(
        checkpoint=Checkpoint(hash=draft.stored.hash, folder=draft.stored.folder, kind="packed"),
        formats=dict(Counter(tensor.format for tensor in summary.tensors)),
        size_bytes=sum(tensor.packed_bytes for tensor in summary.tensors),
        dense_bytes=sum(tensor.dense_bytes for tensor in summary.tensors),
    )


def _patterns(
    config: PreTrainedConfig, pattern: Pattern, allocation: Allocation | None, modules: tuple[str, ...]
) -> dict[str, Pattern]:
    """What `prune` has laid over each linear, by the name of its weight."""
    where, blocks = blocks_without_weights(config)
    linears = [those_of(linears_of(block), modules) for block in blocks]
    shared = Allocation(sparsities=(pattern.sparsity,) * len(blocks))
    by_block = patterns_for(allocation or shared, pattern, linears, [attention_linears(block) for block in blocks])
    return {f"{where}.{block}.{name}.weight": each for block, own in enumerate(by_block) for name, each in own.items()}


def _batches(calibration: Tokens, device: str) -> tuple[Tensor, ...]:
    return batches_of(load_file(open_folder(calibration) / "tokens.safetensors")["ids"], device)
