"""How large a model is, on disk and in memory, and how many zeros its pruned linears really hold."""

from torch import Tensor, nn
from torch.sparse import SparseSemiStructuredTensor
from transformers import PreTrainedModel

from tasks.model.anatomy import find_blocks, linears_of
from tasks.model.folder import weight_bytes
from tasks.model.mapped import release

__all__ = ["count_parameters", "count_sparse_linears", "counted_sparsity", "memory_bytes", "weight_bytes"]


def count_parameters(model: nn.Module) -> int:
    """Parameters, zeros included; what is tied counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def memory_bytes(model: nn.Module) -> int:
    """Bytes of the parameters and buffers in memory, where mapped ones would lie too; what is tied counts once."""
    return sum(_bytes_held(tensor) for tensor in (*model.parameters(), *model.buffers()))


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
