"""Walking a model block by block: hidden states wait between the blocks, and one block at a time is on the device.

They wait on a GPU, in memory or in files, as there is room (tasks.calibrate.spill), and a model that was opened by
tasks.model.mapped.mapped_model is in memory one block at a time.

Axes: B windows of a batch, T tokens of a window, D model width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.calibrate.calls import Call, record_calls, unwrap
from tasks.calibrate.spill import HiddenStates, Spill
from tasks.model.anatomy import Anatomy
from tasks.model.mapped import own, release

CHECKED_TOKENS = 64
TOLERANCE = 1e-3  # relative; the same operations on the same device differ by rounding at most


class Walk:
    """The inputs of one block for all batches: `hidden[batch]`, wherever it waits. Starts before block 0.

    `batches` are ids, (windows, tokens) each, of any shapes. `device` is where blocks run; None for where the model is.
    `spill`: where the hidden states wait; None for `Spill()`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        anatomy: Anatomy,
        batches: Sequence[Tensor],
        device: torch.device | str | None = None,
        spill: Spill | None = None,
    ) -> None:
        self.blocks = anatomy.blocks
        self.device = torch.device(device or model.device)
        self.hidden = HiddenStates(spill or Spill())
        self._calls: list[list[Call]] = []
        for hidden_BTD, calls in record_calls(model, anatomy, batches):
            self.hidden.append(hidden_BTD)
            self._calls.append(calls)

    def twin(self) -> Self:
        """A walk from where this one is, that goes its own way from there."""
        twin = copy(self)
        twin.hidden = self.hidden.twin()
        return twin

    def output(self, index: int, batch: int) -> Tensor:
        """Run block `index` on the inputs of one batch; its output, on `device`."""
        return self.call(index, batch)(self.blocks[index], self.hidden[batch].to(self.device))

    def call(self, index: int, batch: int) -> Call:
        """What block `index` gets beside the hidden states of one batch."""
        return self._calls[batch][index]

    def advance(self, index: int, batch: int) -> Tensor:
        """As `output`, which has then replaced the inputs of this batch."""
        output_BTD = self.output(index, batch)
        self.hidden[batch] = output_BTD
        return output_BTD

    def step(self, index: int) -> Iterator[Tensor]:
        """Run block `index` on all batches; yields each output: so the walk moves on to the next block."""
        for batch in range(len(self.hidden)):
            yield self.advance(index, batch)


@torch.no_grad()
def check_walk(model: PreTrainedModel, anatomy: Anatomy, ids_BT: Tensor) -> None:
    """Prove on one short window that walking the blocks gives the hidden states of the model's own forward.

    Raises ValueError, naming the first block that differs, for a model whose blocks share more than hidden states.
    """
    window_BT = ids_BT[:1, :CHECKED_TOKENS]
    walk = Walk(model, anatomy, [window_BT])
    for index, own_BTD in enumerate(_own_outputs(model, anatomy.blocks, window_BT)):
        if not own_BTD.isfinite().all():
            raise ValueError(f"model: NaN or infinity in the output of block {index}; the model or its dtype is broken")
        (walked_BTD,) = walk.step(index)
        difference = (walked_BTD.float() - own_BTD.float()).norm() / own_BTD.float().norm()
        if not difference <= TOLERANCE:
            raise ValueError(
                f"model: walking {type(model).__name__} block by block differs from its own forward at block {index} "
                f"(relative difference {difference:.1e}); its blocks cannot be calibrated one at a time"
            )


@contextmanager
def placed(block: nn.Module, device: torch.device) -> Iterator[None]:
    """The block is on `device` within, and then again where it was, with what became of it. It is in memory."""
    home = next(block.parameters()).device
    block.to(device)
    own(block.parameters())
    try:
        yield
    finally:
        block.to(home)


@contextmanager
def lent(block: nn.Module, device: torch.device) -> Iterator[None]:
    """The block is on `device` within, and then again as it was before: for one that is only looked at."""
    before = {parameter: parameter.data for parameter in block.parameters()}
    home = next(iter(before)).device
    block.to(device)
    try:
        yield
    finally:
        if home != device:
            for parameter, data in before.items():
                parameter.data = data
            block.to(home)
        release(before)


def _own_outputs(model: PreTrainedModel, blocks: Sequence[nn.Module], ids_BT: Tensor) -> list[Tensor]:
    """What each block returns in the model's own forward."""
    outputs: list[Tensor] = []

    def keep(block: nn.Module, inputs: object, output: object) -> None:
        outputs.append(unwrap(output))

    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        model.base_model(ids_BT.to(model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return outputs
