"""Gradient checkpointing: a block keeps only its input, and its backward pass computes the rest again."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from tasks.model.anatomy import find_blocks


@contextmanager
def recomputing(model: PreTrainedModel) -> Iterator[None]:
    """Within, the decoder blocks keep no activations for the backward pass; dropout is drawn a second time alike.

    Done here for every family and version of transformers alike; its own switch leaves a hook on the embeddings.
    """
    _, blocks = find_blocks(model)
    before = [vars(block).get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            block.__dict__.pop("forward", None)  # what the class has is seen again
            if own is not None:
                block.forward = own
