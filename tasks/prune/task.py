"""The door of the prune room: the stages `prune` and `pack`."""

from collections import Counter

from safetensors.torch import load_file
from torch import Tensor

from tasks.handles import BlockRow, Checkpoint, LinearRow, Packed, Pruned, Tokens
from tasks.model.anatomy import prunable
from tasks.model.load import load_config, load_model, save_model
from tasks.progress import progress
from tasks.prune.allocation import Allocation
from tasks.prune.allocators import Allocator
from tasks.prune.factors import SparseLowRank, write_factors
from tasks.prune.orders import write_orders
from tasks.prune.pack import pack_checkpoint
from tasks.prune.weight.apply import prune_blocks
from tasks.prune.weight.pattern import Pattern
from tasks.prune.weight.recipe import Recipe
from tasks.record import home
from tasks.stage import open_folder, stage

BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}  # of one calibration batch: what fits a cache, or fills a GPU


@stage()
def allocate(model: Checkpoint, calibration: Tokens, allocator: Allocator, pattern: Pattern, device: str) -> Allocation:
    """How much of each block goes, where `pattern` says how much in all."""
    network = load_model(open_folder(model))
    return allocator.allocate(network, pattern, _batches(calibration, device), device)


@stage()
def prune(model: Checkpoint, calibration: Tokens, recipe: Recipe, allocation: Allocation | None, device: str) -> Pruned:
    """Prune `model` block by block on the calibration windows; the result is a folder that transformers loads."""
    folder = open_folder(model)
    network = load_model(folder)
    batches = _batches(calibration, device)
    blocks: list[BlockRow] = []
    linears: list[LinearRow] = []
    orders: dict[str, Tensor] = {}
    factors: dict[str, SparseLowRank] = {}
    with progress(f"{recipe} {recipe.pattern}", total=network.config.get_text_config().num_hidden_layers) as reach:
        for block_row, pruned in prune_blocks(network, recipe, batches, allocation, device=device):
            blocks.append(block_row)
            linears += [linear.row for linear in pruned]
            orders |= {linear.tensor: linear.order_I for linear in pruned if linear.order_I is not None}
            factors |= {linear.tensor: linear.factors for linear in pruned if linear.factors is not None}
            reach(len(blocks))
    with home.store("checkpoints") as draft:
        save_model(network, folder, draft.path)
        write_orders(draft.path, orders)
        write_factors(draft.path, factors)
    checkpoint = Checkpoint(hash=draft.stored.hash, folder=draft.stored.folder)
    return Pruned(checkpoint=checkpoint, blocks=tuple(blocks), linears=tuple(linears))


@stage()
def pack(checkpoint: Checkpoint, pattern: Pattern, allocation: Allocation | None) -> Packed:
    """Store the pruned linears as kept values and their positions; every other tensor as it is."""
    with home.store("packed") as draft:
        folder = open_folder(checkpoint)
        pruned = [f"{linear}.weight" for linear in prunable(load_config(folder))]
        summary = pack_checkpoint(folder, draft.path, None if allocation else pattern, pruned)
    return Packed(
        checkpoint=Checkpoint(hash=draft.stored.hash, folder=draft.stored.folder, kind="packed"),
        formats=dict(Counter(tensor.format for tensor in summary.tensors)),
        size_bytes=sum(tensor.packed_bytes for tensor in summary.tensors),
        dense_bytes=sum(tensor.dense_bytes for tensor in summary.tensors),
    )


def _batches(calibration: Tokens, device: str) -> tuple[Tensor, ...]:
    ids = load_file(open_folder(calibration) / "tokens.safetensors")["ids"]
    return ids.split(max(1, BATCH_TOKENS[device.partition(":")[0]] // calibration.window))
