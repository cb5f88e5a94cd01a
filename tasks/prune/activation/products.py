"""The products that read kept rows alone, and which of them is used where.

Axes: T tokens, I inputs, O outputs.
"""

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tasks.prune.activation.compiled_product import SYMBOLS, compiled_product, library
from tasks.prune.activation.product import gather_product
from tasks.prune.activation.shared_library import NotCompiled
from tasks.prune.activation.triton_product import check_device, row_product

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # (x_TI, weight_IO, threshold) to (T, O)

PRODUCTS: Mapping[str, Product] = {
    "compiled": compiled_product,
    "gathered": gather_product,
    "triton": row_product,
}


def product_for(device: torch.device, dtype: torch.dtype) -> str:
    """Its name among PRODUCTS: on CUDA Triton's, on a CPU a compiled one; where there is none, kept rows are gathered.

    Compiles where this machine has not yet, in a second or two; where that fails, a warning says why. Raises ValueError
    for a device that is neither a CPU nor CUDA with Triton.
    """
    if device.type != "cpu":
        check_device(device)
        return "triton"
    if dtype not in SYMBOLS:
        return "gathered"
    try:
        library()
    except NotCompiled as error:
        warnings.warn(f"products: kept rows are gathered, which is slower; nothing was compiled: {error}", stacklevel=2)
        return "gathered"
    return "compiled"
