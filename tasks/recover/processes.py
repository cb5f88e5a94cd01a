"""One process, or one of several that `accelerate launch` has started; the training loop reads the same for both.

The configurations lie in tasks/recover/configs: recover_ddp.yaml and recover_fsdp.yaml.
"""

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


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

    Without a GPU they meet over gloo. ValueError for FSDP there, which accelerate would make DDP without a word.
    """

    def __init__(self) -> None:
        from accelerate import Accelerator

        self._accelerator = Accelerator(cpu=not torch.cuda.is_available())
        if os.environ.get("ACCELERATE_USE_FSDP", "false") == "true" and not self._accelerator.is_fsdp2:
            raise ValueError(f"fsdp: {self._accelerator.device} given, valid are GPUs and version 2; DDP runs anywhere")
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


def join() -> Processes:
    """Several, where a launcher has said so in the environment."""
    return LaunchedProcesses() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else Processes()
