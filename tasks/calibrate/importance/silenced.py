"""The attention or the FFN of a block, as if it were not there: its last linear, bias and all, gives zeros."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def silenced(last: nn.Linear) -> Iterator[None]:
    """Within, `last` gives zeros in place of its outputs. No weight is touched."""
    handle = last.register_forward_hook(lambda _, inputs, output: torch.zeros_like(output))
    try:
        yield
    finally:
        handle.remove()
