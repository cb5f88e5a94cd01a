"""A 2:4 linear by torch's semi-structured kernels beside the same one dense, in bfloat16.

Axes: T tokens, O outputs, I inputs of the linear.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import linear

from bench.timing import calls_that_fill, interleave
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import NM

DENSE, SEMI_STRUCTURED = "dense", "2:4"
TOKENS = (1, 16, 256, 4096)
LEAST_SECONDS = {"cuda": 0.02, "cpu": 0.0}  # of one measurement
STREAMED_BYTES = {"cuda": 1 << 29, "cpu": 0}  # of dense weights that take turns, so that a cache holds none of them


@dataclass(frozen=True, kw_only=True)
class KernelRow:
    """One row per shape of a linear and number of tokens."""

    shape: tuple[int, int]
    tokens: int
    times_s: dict[str, list[float]]  # side -> each round, seconds of one product
    difference: float  # of the two outputs, relative to the dense one


def compare_kernels(shapes: Sequence[tuple[int, int]], device: torch.device, rounds: int) -> Iterator[KernelRow]:
    """Shapes × TOKENS. The calls of a measurement are queued, and the last of them is waited for.

    On a CPU, which has no such kernels, both sides are dense.
    """
    generator = torch.Generator(device).manual_seed(0)
    for outputs, inputs in shapes:
        weight_OI = torch.randn(outputs, inputs, generator=generator, device=device, dtype=torch.bfloat16)
        pruned_OI = Magnitude().prune(weight_OI, None, NM(2, 4))
        copies = 1 + STREAMED_BYTES[device.type] // pruned_OI.nbytes
        weights = {
            DENSE: [pruned_OI.clone() for _ in range(copies)],
            SEMI_STRUCTURED: [_semi_structured(pruned_OI) for _ in range(copies)],
        }
        for tokens in TOKENS:
            x_TI = torch.randn(tokens, inputs, generator=generator, device=device, dtype=torch.bfloat16)
            dense_TO, sparse_TO = (linear(x_TI, each[0]).float() for each in weights.values())
            sides = {name: partial(_through, x_TI, each) for name, each in weights.items()}
            passes = calls_that_fill(LEAST_SECONDS[device.type], sides)
            sides = {name: partial(_through, x_TI, each, passes) for name, each in weights.items()}
            times = interleave(sides, rounds)
            yield KernelRow(
                shape=(outputs, inputs),
                tokens=tokens,
                times_s={name: [each / passes / copies for each in seconds] for name, seconds in times.items()},
                difference=((sparse_TO - dense_TO).norm() / dense_TO.norm()).item(),
            )


def _semi_structured(weight_OI: Tensor) -> Tensor:
    return torch.sparse.to_sparse_semi_structured(weight_OI) if weight_OI.is_cuda else weight_OI.clone()


def _through(x_TI: Tensor, weights: Sequence[Tensor], passes: int = 1) -> None:
    """The product with each weight in turn, `passes` times."""
    with torch.no_grad():
        for _ in range(passes):
            for weight_OI in weights:
                linear(x_TI, weight_OI)
    if x_TI.is_cuda:
        torch.cuda.synchronize()
