"""One process of several: recovers the tests' small model and prints what came of it; started by `accelerate launch`.

First as accelerate has it, with DDP; then with the weights spread over the processes as FSDP does on GPUs, for which
accelerate has no way on a CPU.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from tasks.recover import recover as loop
from tasks.recover.processes import LaunchedProcesses, Processes
from tasks.recover.recovery import Recovery
from tests.recover.text import pruned_llama, some_windows


class SpreadProcesses(LaunchedProcesses):
    """Every block is a unit of FSDP 2, the rest of the model another."""

    def prepare(self, model: nn.Module, optimizer: AdamW) -> tuple[nn.Module, AdamW]:
        for block in model.model.layers:
            fully_shard(block)
        fully_shard(model)
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
        return model, AdamW(model.parameters(), lr=0.0, betas=optimizer.defaults["betas"], weight_decay=0.0)

    def accumulating(self, model: nn.Module):
        return Processes.accumulating(self, model)


def main(folder: Path, recovery: Recovery) -> None:
    for way, processes in (("ddp", LaunchedProcesses), ("spread", SpreadProcesses)):
        loop.join = processes
        path = folder / f"{way}.safetensors"
        done = loop.recover(pruned_llama(), some_windows(), recovery, checkpoint=path, checkpoint_every=5)
        rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
        (folder / f"{way}-{rank}-of-{count}.json").write_text(json.dumps(asdict(done)), encoding="utf-8")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Recovery(**json.loads(sys.argv[2])))
