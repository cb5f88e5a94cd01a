"""How large a model is, on disk and in memory, and how many zeros its pruned linears really hold."""

import torch
from torch import Tensor, nn
from torch.sparse import SparseSemiStructuredTensor
from transformers import PreTrainedModel

from tasks.model.anatomy import TRIAL_TOKENS, find_blocks, linears_of
from tasks.model.folder import weight_bytes
from tasks.model.mapped import release
from tasks.model.mode import evaluating

__all__ = [
    "cache_bytes",
    "count_parameters",
    "count_sparse_linears",
    "counted_sparsity",
    "memory_bytes",
    "weight_bytes",
]


def count_parameters(model: nn.Module) -> int:
    """Parameters, zeros included; what is tied counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def memory_bytes(model: nn.Module) -> int:
    """Bytes of the parameters and buffers in memory, where mapped ones would lie too; what is tied counts once."""
    return sum(_bytes_held(tensor) for tensor in (*model.parameters(), *model.buffers()))


def cache_bytes(model: PreTrainedModel, tokens: int = 1000) -> int:
    """Bytes of the keys and values of one sequence of so many tokens; what slides keeps those of its window.

    They are those of a few tokens, as the model really stores them, times what is missing.
    """
    ids_BT = torch.zeros(1, TRIAL_TOKENS, dtype=torch.long, device=model.device)
    with evaluating(model), torch.no_grad():
        cache = model.base_model(ids_BT, use_cache=True).past_key_values
    total = 0
    for slot in cache.layers:
        if slot.is_initialized:  # a block that has lost its attention leaves one empty
            stored = slot.keys.shape[-2]
            kept = min(tokens, slot.sliding_window - 1) if slot.is_sliding else tokens
            total += (_bytes_held(slot.keys) + _bytes_held(slot.values)) // stored * kept
    return total


def counted_sparsity(model: PreTrainedModel) -> float:
    """Zeros counted in the linears of the decoder blocks, which are what is pruned, over their weights: 0 to 1."""
    zeros = total = 0
    for block in find_blocks(model)[1]:
        for linear in linears_of(block).values():
            weight_OI = linear.weight
            if isinstance(weight_OI, SparseSemiStructuredTensor):
                weight_OI = weight_OI.to_dense()
            zeros += weight_OI.numel() - int(weight_OI.count_nonzero())
            total += weight_OI.numel()
        release(block.parameters())
    return zeros / total


def count_sparse_linears(model: nn.Module) -> int:
    """Linears that run as semi-structured tensors; all others read every weight, zeros included, when they run."""
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return sum(isinstance(linear.weight, SparseSemiStructuredTensor) for linear in linears)


def _bytes_held(tensor: Tensor) -> int:
    """A tensor that is made of others, as a semi-structured one is, holds what they hold."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return sum(_bytes_held(getattr(tensor, name)) for name in names)
    return tensor.numel() * tensor.itemsize
