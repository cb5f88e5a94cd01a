"""A semi-structured weight, which needs no GPU to be made, only to be multiplied. Axes: O out, I in."""

import torch
from torch import nn
from torch.sparse import SparseSemiStructuredTensorCUTLASS


def sparse_weight(out_features: int, in_features: int) -> nn.Parameter:
    """What tasks.prune.semi_structured leaves in a linear, with kept values of zero."""
    kept = torch.zeros(out_features, in_features // 2, dtype=torch.float16)
    positions = torch.zeros(out_features, in_features // 16, dtype=torch.int16)
    weight_OI = SparseSemiStructuredTensorCUTLASS(
        torch.Size((out_features, in_features)),
        packed=kept,
        meta=positions,
        packed_t=None,
        meta_t=None,
        compressed_swizzled_bitmask=None,
    )
    return nn.Parameter(weight_OI, requires_grad=False)
