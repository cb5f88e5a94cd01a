"""Letting a sparse model decode fast: products that read kept rows alone, where they win on this machine.

Which product that is depends on the device (products.py). Whether it wins is measured for each shape, share and number
of tokens, in turns with the dense product, on weights that have fallen out of the cache as they do in a model. What was
measured is returned, to be kept and given again; where the sparse product loses, the dense one runs.

Axes: T tokens, I inputs, O outputs of all linears that share the input.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from tasks.prune.activation.fused import Fused, fuse, unfuse
from tasks.prune.activation.product import MOST_TOKENS
from tasks.prune.activation.products import PRODUCTS, product_for
from tasks.prune.activation.sparse_input import SparseInput, SparseLinear
from tasks.prune.activation.threshold import Threshold

TOKENS = (1, 2, 4, MOST_TOKENS)
REPETITIONS = 9
COLD_BYTES = 1 << 28  # of weights between two uses of one: more than a cache holds


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A product: of `inputs` a share `dropped`, rounded to 5 %, and `outputs`, on a device with so many CPU threads.

    `product`: the name in products.PRODUCTS of what reads kept rows alone.
    """

    inputs: int
    outputs: int
    dropped: float
    dtype: str
    threads: int
    device: str = "cpu"  # or cuda
    product: str = "gathered"  # decisions that were kept before there were others name none


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The dense and the sparse product of a shape in milliseconds, for each of TOKENS; what is faster is used."""

    shape: Shape
    dense_ms: tuple[float, ...]
    sparse_ms: tuple[float, ...]

    @property
    def most_tokens(self) -> int:
        """Up to so many tokens the sparse one wins; 0: for none."""
        most = 0
        for tokens, dense, sparse in zip(TOKENS, self.dense_ms, self.sparse_ms, strict=True):
            if sparse >= dense:
                break
            most = tokens
        return most


@contextmanager
def fast(
    model: nn.Module,
    known: Mapping[Shape, Decision] | None = None,
    measure: Callable[[Shape, int], Decision] | None = None,
) -> Iterator[dict[Shape, Decision]]:
    """Within, the sparse linears of `model` read kept rows alone wherever that is faster; yields what was decided.

    `known`: decisions of this machine, which are not measured again. `measure`: in the place of `measure_shape`.
    On a CPU the product is compiled here if this machine has not yet. Raises ValueError for a model that reads no
    sparse inputs, that is neither on a CPU nor on CUDA, or that is there without Triton.
    """
    groups = readers_of(model)
    if not groups:
        raise ValueError("model: it reads no sparse inputs, so nothing can be made faster; install some first")
    named = cache(product_for)  # once for all inputs: it may compile, or warn
    shapes = {
        source: shape_of(source, readers, named(readers[0].weight.device, readers[0].weight.dtype))
        for source, readers in groups.items()
    }
    decisions, weight_bytes = dict(known or {}), sum(each.nbytes for each in model.parameters())
    for shape in shapes.values():
        if shape not in decisions:
            decisions[shape] = (measure or measure_shape)(shape, min(COLD_BYTES, weight_bytes))
    fused = [source for source, shape in shapes.items() if decisions[shape].most_tokens]
    try:
        for source in fused:
            _fuse(source, groups[source], decisions[shapes[source]])
        yield {shape: decisions[shape] for shape in shapes.values()}
    finally:
        for source in fused:
            source.fused = None
            unfuse(groups[source])


def readers_of(model: nn.Module) -> dict[SparseInput, list[SparseLinear]]:
    """The linears that read each sparse input, in the order they run."""
    readers: dict[SparseInput, list[SparseLinear]] = {}
    for module in model.modules():
        if isinstance(module, SparseLinear):
            readers.setdefault(module.source, []).append(module)
    return readers


def shape_of(source: SparseInput, readers: Sequence[SparseLinear], product: str) -> Shape:
    return Shape(
        inputs=readers[0].in_features,
        outputs=sum(each.out_features for each in readers),
        dropped=round(20 * source.pattern.sparsity) / 20,
        dtype=str(readers[0].weight.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        device=readers[0].weight.device.type,
        product=product,
    )


@torch.no_grad()
def measure_shape(shape: Shape, cold_bytes: int) -> Decision:
    """Time both products in turns, on enough copies of a weight that `cold_bytes` lie between two uses of one."""
    dtype = getattr(torch, shape.dtype)
    generator = torch.Generator().manual_seed(0)
    weight_IO = torch.randn(shape.inputs, shape.outputs, generator=generator).to(shape.device, dtype)
    copies = [weight_IO.clone() for _ in range(max(1, cold_bytes // weight_IO.nbytes))]
    product = PRODUCTS[shape.product]
    dense_ms, sparse_ms = [], []
    for tokens in TOKENS:
        keep_TI = torch.rand(tokens, shape.inputs, generator=generator) >= shape.dropped
        kept_TI = (torch.randn(tokens, shape.inputs, generator=generator) * keep_TI).to(shape.device, dtype)
        taken: tuple[list[float], list[float]] = ([], [])
        for repetition in range(REPETITIONS + 1):
            one, other = (copies[(repetition + ahead) % len(copies)] for ahead in (0, len(copies) // 2))
            taken[0].append(_seconds(partial(linear, kept_TI, one.view(shape.outputs, shape.inputs))))
            taken[1].append(_seconds(partial(product, kept_TI, other, None)))
        dense_ms.append(1000 * min(taken[0][1:]))  # the first warms up, and what else runs here only adds to a time
        sparse_ms.append(1000 * min(taken[1][1:]))
    return Decision(shape=shape, dense_ms=tuple(dense_ms), sparse_ms=tuple(sparse_ms))


def _fuse(source: SparseInput, readers: Sequence[SparseLinear], decision: Decision) -> None:
    weight_IO, start = fuse(readers), 0
    for each in readers:
        each.columns = slice(start, start + each.out_features)
        start += each.out_features
    source.fused = Fused(
        weight_IO,
        _constant(source, weight_IO),
        decision.most_tokens,
        PRODUCTS[decision.shape.product],
        _threshold(source, weight_IO),
    )


def _threshold(source: SparseInput, weight_IO: Tensor) -> Tensor | None:
    """What the product itself may compare inputs with: of inputs that no mitigation changes.

    In the dtype in which the selection compares them, that of the token, and where the kernel reads it.
    """
    if source.mitigations or not isinstance(source.selection, Threshold):
        return None
    return source.facts.get_buffer("threshold").to(weight_IO)


@torch.no_grad()
def _constant(source: SparseInput, weight_IO: Tensor) -> Tensor | None:
    """The product of what stands in for inputs: of a token of ones, whose mean and median are 1."""
    shift = source.shift(weight_IO.new_ones(1, len(weight_IO)))
    return None if shift is None else shift.expand(1, len(weight_IO))[0] @ weight_IO


def _seconds(compute: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    if compute().is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started
