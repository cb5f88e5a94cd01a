"""What a model hands to each of its blocks besides the hidden states: masks, position embeddings, flags.

It is taken from the model itself, so that no family has to be known: a forward in which every block returns its hidden
states unchanged, which costs the embeddings and nothing else. Blocks of one model may get different arguments (Gemma 2
and 3 mix sliding and full attention), so each block's are kept; equal tensors are kept once.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.model.anatomy import Anatomy


@dataclass(frozen=True)
class Call:
    """The arguments of a block after its hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, block: nn.Module, hidden_BTD: Tensor) -> Tensor:
        """The block's output hidden states; everything else it may return is dropped.

        The arguments go to the device of the hidden states, and to their dtype where they are floats.
        """

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(hidden_BTD if tensor.is_floating_point() else hidden_BTD.device)

        return unwrap(block(hidden_BTD, *_each_tensor(self.args, move), **_each_tensor(self.kwargs, move)))


def unwrap(output: Any) -> Tensor:
    """The hidden states of what a block returned. By type: indexing a bare tensor would take sample 0 of the batch."""
    return output[0] if isinstance(output, tuple) else output


def record_calls(
    model: PreTrainedModel, anatomy: Anatomy, batches: Iterable[Tensor]
) -> Iterator[tuple[Tensor, list[Call]]]:
    """For each batch the hidden states before block 0, on the CPU, and the call of every block.

    `batches` are ids, (windows, tokens) each; their shapes may differ.
    """
    kept: list[Tensor] = []
    for ids_BT in batches:
        with torch.no_grad(), _bypassed(anatomy) as reached:
            model.base_model(ids_BT.to(model.device), use_cache=False)
        same = _Same(kept)
        calls = [Call(_each_tensor(args, same), _each_tensor(kwargs, same)) for _, args, kwargs in reached]
        yield reached[0][0].cpu(), calls


@contextmanager
def _bypassed(anatomy: Anatomy) -> Iterator[list[tuple[Tensor, tuple, dict]]]:
    """Within, a block returns its hidden states as they are; yields what reached the blocks, in order.

    The substitute is an attribute of the instance: it hides the method of the class until it is deleted.
    """
    reached: list[tuple[Tensor, tuple, dict]] = []

    def unchanged(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor]:
        reached.append((hidden_states, args, kwargs))
        return (hidden_states,) if anatomy.returns_tuple else hidden_states

    before = [vars(block).get("forward") for block in anatomy.blocks]
    try:
        for block in anatomy.blocks:
            block.forward = unchanged
        yield reached
    finally:
        for block, own in zip(anatomy.blocks, before, strict=True):
            del block.forward
            if own is not None:
                block.forward = own


class _Same:
    """tensor -> the first of all kept tensors that equals it; a new one is kept."""

    def __init__(self, kept: list[Tensor]) -> None:
        self.kept = kept
        self.seen: list[tuple[Tensor, Tensor]] = []  # of this forward, where blocks mostly get the very same object

    def __call__(self, tensor: Tensor) -> Tensor:
        for object_, known in self.seen:
            if object_ is tensor:
                return known
        for known in self.kept:
            if known.dtype == tensor.dtype and torch.equal(known, tensor):
                break
        else:
            known = tensor
            self.kept.append(tensor)
        self.seen.append((tensor, known))
        return known


def _each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor in its tuples, lists and dicts changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)(_each_tensor(item, change) for item in value)
    if isinstance(value, dict):
        return {key: _each_tensor(item, change) for key, item in value.items()}
    return value
