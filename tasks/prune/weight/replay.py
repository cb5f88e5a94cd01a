"""A computation on a GPU that is recorded once, as a CUDA graph, and replayed on other numbers.

A block of the sweep is hundreds of small kernels, and to ask for each of them takes longer than to run it; a graph asks
for all of them at once. It works on the memory that it was recorded with: inputs are copied there, and the results lie
there until the next call. What is recorded must never wait for the GPU; where it would, the recording raises
RuntimeError. tests/prune/weight/test_host_trips.py shows on any machine that the sweep does not.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

DEVICES = ("cuda",)  # whose work can be recorded

Tensors = tuple[Tensor, ...]


class Replay:
    """`compute`, recorded at the first call; later calls must come with the same shapes, dtypes and device.

    What is returned is overwritten by the next call. One thread at a time may use it.
    """

    def __init__(self, compute: Callable[..., Tensors]) -> None:
        self._compute = compute
        self._again: Callable[[], None] | None = None
        self._inputs: Tensors = ()
        self._outputs: Tensors = ()

    def __call__(self, *inputs: Tensor) -> Tensors:
        if self._again is None:
            self._inputs = tuple(each.clone(memory_format=torch.contiguous_format) for each in inputs)
            self._again, self._outputs = record(partial(self._compute, *self._inputs), inputs[0].device)
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._again()
        return self._outputs


def record(compute: Callable[[], Tensors], device: torch.device) -> tuple[Callable[[], None], Tensors]:
    """What runs `compute` once more, and the tensors in which the results then lie.

    It is run once before, so that the libraries behind it have set themselves up when the recording begins.
    """
    with torch.cuda.device(device):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            compute()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
            outputs = compute()
    return graph.replay, outputs
