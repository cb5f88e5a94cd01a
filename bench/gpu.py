"""`python -m bench.gpu`: 2:4 kernels beside dense ones, and pruning a Llama of the 8B shape, on a CUDA device.

It needs torch, transformers, safetensors, numpy and scipy alone.
"""

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import torch
import transformers

from bench.__main__ import RESULTS, at_least, say
from bench.gpu_linear import compare_kernels
from bench.gpu_pruning import SHAPES, time_prunings
from bench.gpu_table import GPUBench, write
from tasks.prune.weight.recipe import Order
from tasks.record.provenance import machine


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    choice = parse(arguments)
    if choice.device == "cuda" and not torch.cuda.is_available():
        say("device: a CUDA device is needed, torch sees none; `--device cpu --width small` tries this program out")
        return 2
    device, shape, started = torch.device(choice.device), SHAPES[choice.width], datetime.now(UTC)
    kernels, runs = [], []
    for kernel in compare_kernels(shape.linears, device, choice.rounds):
        kernels.append(kernel)
        say(f"{kernel.shape} on {kernel.tokens} tokens")
    batches = shape.random_batches(choice.windows, choice.window, choice.at_once)
    for run in time_prunings(shape, choice.blocks, batches, choice.orders, device):
        runs.append(run)
        say(f"{run.method}  {run.pattern}  by {run.order}  {run.seconds:.1f} s")
    bench = GPUBench(
        command=shlex.join(["python", "-m", "bench.gpu", *arguments]),
        date=started.isoformat(timespec="seconds"),
        machine=machine(),
        versions=json.dumps(versions()),
        trial=device.type == "cpu",
        rounds=choice.rounds,
        shape=choice.width,
        blocks=choice.blocks,
        windows=choice.windows,
        window=choice.window,
        windows_at_once=choice.at_once,
        kernels=tuple(kernels),
        runs=tuple(runs),
    )
    print(write(bench, choice.results, "gpu-trial" if bench.trial else "gpu"))
    return 0


def versions() -> dict[str, str | None]:
    """Of what computes. The package itself need not be installed here."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cuda": torch.version.cuda,
    }


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description=__doc__,
        epilog="Writes <date>-gpu.json with every raw time, and gpu.md (on a CPU, gpu-trial); prints the latter.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: does the program run (cuda)")
    parser.add_argument("--width", choices=SHAPES, default="8b", help="shape of the blocks (8b)")
    parser.add_argument("--blocks", type=at_least(1), default=32, help="of the model (32)")
    parser.add_argument("--windows", type=at_least(1), default=128, help="to calibrate on (128)")
    parser.add_argument("--window", type=at_least(1), default=2048, help="tokens of each (2048)")
    parser.add_argument("--at-once", type=at_least(1), default=4, help="windows of a batch (4)")
    parser.add_argument("--orders", nargs="+", choices=get_args(Order), default=list(get_args(Order)), help="(both)")
    parser.add_argument("--rounds", type=at_least(2), default=6, help="measurements of each kernel (6)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to (bench/results)")
    choice = parser.parse_args(arguments)
    if choice.device == "cpu" and choice.width != "small":
        parser.error(f"--width: {choice.width} given, on a CPU valid is small")
    return choice


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
