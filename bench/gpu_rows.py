"""`python -m bench.gpu_rows`: a product that reads kept rows alone beside cuBLAS, for one token, on a CUDA device.

The shapes are those of an 8B Llama, linears that share an input taken together, in bfloat16. Both sides are recorded as
CUDA graphs: launching a kernel from Python takes longer than these products. It needs torch, with the Triton that comes
with it, transformers, safetensors, numpy and scipy alone.

Axes: T tokens, O outputs, I inputs.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from bench.__main__ import RESULTS, at_least, say
from bench.gpu import versions
from bench.gpu_pruning import SHAPES, Shape
from bench.gpu_rows_table import CUBLAS, ROWS, markdown
from bench.stored import store
from bench.timing import calls_that_fill, interleave
from tasks.prune.activation.product import gather_product
from tasks.prune.activation.triton_product import check_device, row_product
from tasks.record.provenance import machine

SHARES = (0.4, 0.5)
LEAST_SECONDS = {"cuda": 0.02, "cpu": 0.0}  # of one measurement
STREAMED_BYTES = {"cuda": 1 << 29, "cpu": 0}  # of weights that take turns, so that a cache holds none of them


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    choice = parse(arguments)
    if choice.device == "cuda" and not torch.cuda.is_available():
        say("device: a CUDA device is needed, torch sees none; `--device cpu --width small` tries this program out")
        return 2
    device = torch.device(choice.device)
    if device.type == "cuda":
        check_device(device)
    facts = {
        "command": shlex.join(["python", "-m", "bench.gpu_rows", *arguments]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": json.dumps(versions()),
        "trial": device.type == "cpu",
        "rounds": choice.rounds,
    }
    rows = []
    for row in compare_products(SHAPES[choice.width], device, choice.shares, choice.rounds):
        rows.append(row)
        say(f"{row['linears']} with {row['share']:.0%} of the inputs dropped")
    name, text = "gpu-rows-trial" if facts["trial"] else "gpu-rows", markdown(facts, rows)
    print(store(facts | {"rows": rows}, text, choice.results, name))
    return 0


def products_of(shape: Shape) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of each product that decoding a token takes in a block."""
    shared = shape.width // shape.heads * shape.kv_heads
    return {
        "q, k, v": (shape.width + 2 * shared, shape.width),
        "o": (shape.width, shape.width),
        "gate, up": (2 * shape.ffn, shape.width),
        "down": (shape.width, shape.ffn),
    }


@torch.no_grad()
def compare_products(
    shape: Shape, device: torch.device, shares: Sequence[float], rounds: int
) -> Iterator[dict[str, Any]]:
    """A row for each product and share of a normal token; the seconds are those of one product."""
    generator = torch.Generator(device).manual_seed(0)
    draw = partial(torch.randn, generator=generator, device=device, dtype=torch.bfloat16)
    for linears, (outputs, inputs) in products_of(shape).items():
        weight_OI = draw(outputs, inputs)
        copies = 1 + STREAMED_BYTES[device.type] // weight_OI.nbytes
        weights = [weight_OI.clone() for _ in range(copies)]
        transposed = [weight_OI.T.contiguous() for _ in range(copies)]
        for share in shares:
            x_TI = draw(1, inputs)
            threshold = x_TI.abs().float().quantile(share).to(x_TI.dtype)
            sides = {
                CUBLAS: recorded(partial(_dense, x_TI, weights), device),
                ROWS: recorded(partial(_rows, x_TI, transposed, threshold), device),
            }
            passes = calls_that_fill(LEAST_SECONDS[device.type], sides)
            times = interleave(sides, rounds, calls=passes)
            kept_TI = x_TI * (x_TI.abs() > threshold)
            exact_TO = kept_TI.double() @ transposed[0].double()
            made_TO = _rows(x_TI, transposed[:1], threshold).double()
            yield {
                "linears": linears,
                "shape": (outputs, inputs),
                "share": share,
                "dropped": 1 - kept_TI.count_nonzero().item() / inputs,
                "times_s": {name: [each / copies for each in taken] for name, taken in times.items()},
                "difference": ((made_TO - exact_TO).norm() / exact_TO.norm()).item(),
            }


def recorded(call: Callable[[], Tensor], device: torch.device) -> Callable[[], object]:
    """`call` as a CUDA graph that is waited for; on a CPU itself."""
    if device.type == "cpu":
        return call
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # kernels are compiled and buffers made before anything is recorded
        call()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return replay


def _dense(x_TI: Tensor, weights: Sequence[Tensor]) -> Tensor:
    for weight_OI in weights:
        product_TO = linear(x_TI, weight_OI)
    return product_TO


def _rows(x_TI: Tensor, weights: Sequence[Tensor], threshold: Tensor) -> Tensor:
    """On a CPU, which has no such kernel, rows are gathered instead."""
    for weight_IO in weights:
        if x_TI.is_cuda:
            product_TO = row_product(x_TI, weight_IO, threshold)
        else:
            product_TO = gather_product(x_TI, weight_IO, threshold)
    return product_TO


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_rows", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: does the program run (cuda)")
    parser.add_argument("--width", choices=SHAPES, default="8b", help="shape of the blocks (8b)")
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES, help="of the inputs dropped (0.4 0.5)")
    parser.add_argument("--rounds", type=at_least(2), default=12, help="measurements of each side (12)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to (bench/results)")
    choice = parser.parse_args(arguments)
    if choice.device == "cpu" and choice.width != "small":
        parser.error(f"--width: {choice.width} given, on a CPU valid is small")
    return choice


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
