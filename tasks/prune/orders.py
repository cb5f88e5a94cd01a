"""The order in which a linear's inputs are n:m, where no other linear could take it over, and the files that hold it.

The checkpoint has its columns where transformers expects them, so it loads anywhere; `weight[:, order]` is n:m. Beside
it stands, for the stage that packs:

    orders-00001.safetensors …   `<tensor>` (I): the inputs in that order, int32

One file a block keeps memory small. Where the order folds into the linears before, nothing has to be stored.

Axes: I inputs of the linear.
"""

from collections.abc import Container, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def write_orders(folder: Path, orders: Mapping[str, Tensor], number: int = 1) -> None:
    """Write `orders-<number>.safetensors`: `orders` by the name of the tensor. Without any, no file is written."""
    if orders:
        tensors = {name: order_I.to("cpu", torch.int32).contiguous() for name, order_I in orders.items()}
        save_file(tensors, folder / f"orders-{number:05d}.safetensors")


def read_orders(folder: Path, tensors: Container[str]) -> dict[str, Tensor]:
    """Every order in the files of a folder, by the name of the tensor.

    Raises ValueError for a damaged file, an order of a tensor that is not among `tensors`, and what is no order.
    """
    orders: dict[str, Tensor] = {}
    for file in sorted(folder.glob("orders-*.safetensors")):
        try:
            found = load_file(file)
        except SafetensorError as error:
            raise ValueError(f"orders: {file} is damaged: {error}") from error
        for name, order_I in found.items():
            if name not in tensors:
                raise ValueError(f"orders: {file} holds {name}, which the checkpoint has not")
            check_order(name, order_I, len(order_I))
        orders |= found
    return orders


def check_order(name: str, order_I: Tensor, inputs: int) -> None:
    """ValueError unless it names each of so many inputs once."""
    if not torch.equal(order_I.long().sort().values, torch.arange(inputs)):
        raise ValueError(f"orders: what is stored for {name} is no order of {inputs} inputs")
