"""One process of several: recovers the tests' small model and writes what came of it; started by `accelerate launch`.

First with DDP, then with the weights spread over the processes as FSDP does.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from tasks.recover import recover as loop
from tasks.recover.processes import LaunchedProcesses, SpreadProcesses
from tasks.recover.recovery import Recovery
from tests.recover.text import pruned_llama, some_windows


def main(folder: Path, recovery: Recovery) -> None:
    for way, processes in (("ddp", LaunchedProcesses), ("spread", SpreadProcesses)):
        loop.join = processes
        model, path = pruned_llama(), folder / f"{way}.safetensors"
        done = loop.recover(model, some_windows(), recovery, checkpoint=path, checkpoint_every=5)
        assert {isinstance(each, DTensor) for each in model.parameters()} == {way == "spread"}
        rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
        (folder / f"{way}-{rank}-of-{count}.json").write_text(json.dumps(asdict(done)), encoding="utf-8")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Recovery(**json.loads(sys.argv[2])))
