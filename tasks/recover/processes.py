"""One process, or one of several that `accelerate launch` has started; the training loop reads the same for both.

The configurations lie in tasks/recover/configs: recover_ddp.yaml and recover_fsdp.yaml.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.optim import Optimizer
from transformers import PreTrainedModel

from tasks.model.anatomy import find_blocks


class Processes:
    """This process alone: nothing is wrapped, nothing is sent."""

    rank = 0
    count = 1

    def prepare(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """What to call forward on, and the optimizer of its parameters. `model` itself stays what names them."""
        return model, optimizer

    def accumulating(self, model: nn.Module) -> AbstractContextManager[None]:
        """Within, gradients stay with their process; the next backward outside brings all together."""
        return nullcontext()

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        return value

    def wait(self) -> None:
        """Until all have come here."""

    def leave(self) -> None:
        """The others, at the end."""


class LaunchedProcesses(Processes):
    """One of several, as the configuration that `accelerate launch` was given has them: DDP, or FSDP on GPUs.

    Without a GPU they meet over gloo; where all are on one machine, on its loopback interface. ValueError for FSDP of
    version 1, which spreads other things in other ways.
    """

    def __init__(self) -> None:
        from accelerate import Accelerator

        if sys.platform == "linux" and os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # gloo would take that of the machine's name
        self._accelerator = Accelerator(cpu=not torch.cuda.is_available())
        if _spread() and (version := os.environ.get("FSDP_VERSION", "1")) != "2":
            raise ValueError(f"fsdp: version {version} given, valid is 2")
        self.rank = self._accelerator.process_index
        self.count = self._accelerator.num_processes

    def prepare(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        return self._accelerator.prepare(model, optimizer)

    def accumulating(self, model: nn.Module) -> AbstractContextManager[None]:
        return self._accelerator.no_sync(model)

    def total(self, value: Tensor) -> Tensor:
        torch.distributed.all_reduce(value)
        return value

    def wait(self) -> None:
        self._accelerator.wait_for_everyone()

    def leave(self) -> None:
        torch.distributed.destroy_process_group()


class SpreadProcesses(LaunchedProcesses):
    """FSDP without a GPU, where accelerate would make it DDP without a word: torch spreads the model itself.

    Every block is a unit, and the rest of the model another, as the configuration says.
    """

    def prepare(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        assert isinstance(model, PreTrainedModel)
        names = {parameter: name for name, parameter in model.named_parameters()}
        for block in find_blocks(model)[1]:
            fully_shard(block)
        fully_shard(model)
        spread = dict(model.named_parameters())
        for group in optimizer.param_groups:
            group["params"] = [spread[names[parameter]] for parameter in group["params"]]
        return model, optimizer

    @contextmanager
    def accumulating(self, model: nn.Module) -> Iterator[None]:
        assert isinstance(model, FSDPModule)
        model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)


def join() -> Processes:
    """Several, where a launcher has said so in the environment."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    return SpreadProcesses() if _spread() and not torch.cuda.is_available() else LaunchedProcesses()


def _spread() -> bool:
    """Whether the configuration asks for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false") == "true"
