"""2:4 linears on CUDA as torch's semi-structured tensors, whose kernels read half of the weights.

They pay on large products (prefill, batches) and may be slower than dense for few tokens: measure with
tasks.evaluate.speed. Axes: O out, I in.
"""

import torch
from torch import Tensor, nn

DTYPES = (torch.float16, torch.bfloat16)
MULTIPLE_OF_O, MULTIPLE_OF_I = 32, 64  # what both of torch's backends, CUTLASS and cuSPARSELt, take


def to_semi_structured(model: nn.Module) -> list[str]:
    """Turn every 2:4 linear of `model` that the kernels take into semi-structured form, in place; return their names.

    The weights become constants: they can no longer be trained. Raises ValueError where a linear is not on CUDA.
    """
    converted = []
    for name, linear in model.named_modules():
        if isinstance(linear, nn.Linear) and is_convertible(linear.weight):
            if linear.weight.device.type != "cuda":
                raise ValueError(f"device: semi-structured weights need CUDA, {name} is on {linear.weight.device}")
            weight = torch.sparse.to_sparse_semi_structured(linear.weight.detach().contiguous())
            linear.weight = nn.Parameter(weight, requires_grad=False)
            converted.append(name)
    return converted


def is_convertible(weight_OI: Tensor) -> bool:
    """Whether the kernels take this dtype and shape, and at most 2 of every 4 consecutive inputs are not zero."""
    if type(weight_OI) not in (Tensor, nn.Parameter) or weight_OI.dtype not in DTYPES:
        return False
    out_features, in_features = weight_OI.shape
    if out_features % MULTIPLE_OF_O or in_features % MULTIPLE_OF_I:
        return False
    return bool(((weight_OI != 0).view(-1, 4).sum(1) <= 2).all())
