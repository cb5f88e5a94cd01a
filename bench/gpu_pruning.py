"""Pruning a Llama of a given shape with random weights: seconds, and the peak of the device's memory.

The model is in the host's memory and comes to the device a block at a time, as `prune_model` does it for a model that
the device cannot hold.
"""

import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from tasks.model.anatomy import dissect
from tasks.prune import PRUNERS
from tasks.prune.weight import sweep
from tasks.prune.weight.apply import prune_model
from tasks.prune.weight.pattern import parse_pattern

METHODS = ("wanda", "sparsegpt")
PATTERNS = ("50%", "2:4")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Of a Llama: of its blocks, their number apart, and of its embeddings."""

    width: int
    ffn: int
    heads: int
    kv_heads: int
    vocabulary: int

    @property
    def linears(self) -> list[tuple[int, int]]:
        """The different (outputs, inputs) in a block: q and o, k and v, gate and up, down."""
        shared = self.width // self.heads * self.kv_heads
        return [(self.width, self.width), (shared, self.width), (self.ffn, self.width), (self.width, self.ffn)]

    def random_model(self, blocks: int, device: torch.device) -> PreTrainedModel:
        """In bfloat16, its weights drawn on `device`."""
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.ffn,
            num_hidden_layers=blocks,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
        )
        with device:
            return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()

    def random_batches(self, windows: int, window: int, at_once: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, self.vocabulary, (windows, window), generator=generator).split(at_once)


SHAPES = {
    "8b": Shape(width=4096, ffn=14336, heads=32, kv_heads=8, vocabulary=128_256),
    "small": Shape(width=128, ffn=384, heads=4, kv_heads=2, vocabulary=512),
}


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One row per method, pattern and order of pruning within a block; each prunes the same dense model once."""

    method: str
    pattern: str
    order: str
    seconds: float
    peak_bytes: int | None  # of the device's memory, beyond the weights of one block; None where it is not counted
    block_bytes: int
    sparsity: float  # counted in the pruned linears


def time_prunings(
    shape: Shape, blocks: int, batches: Sequence[Tensor], orders: Sequence[str], device: torch.device
) -> Iterator[RunRow]:
    """METHODS × PATTERNS × `orders`."""
    for method in METHODS:
        for pattern in PATTERNS:
            for order in orders:
                yield _time_pruning(shape.random_model(blocks, device).cpu(), batches, method, pattern, order, device)


def _time_pruning(
    model: PreTrainedModel, batches: Sequence[Tensor], method: str, pattern: str, order: str, device: torch.device
) -> RunRow:
    gc.collect()
    before = _reset_peak(device)
    started = time.perf_counter()
    rows = prune_model(model, PRUNERS[method](), parse_pattern(pattern), batches, device=device, order=order)
    peak = _peak(device)
    seconds = time.perf_counter() - started
    block_bytes = sum(parameter.nbytes for parameter in dissect(model).blocks[0].parameters())
    return RunRow(
        method=method,
        pattern=pattern,
        order=order,
        seconds=seconds,
        peak_bytes=None if peak is None else peak - before - block_bytes,
        block_bytes=block_bytes,
        sparsity=sum(row.zeros for row in rows) / sum(row.out_features * row.in_features for row in rows),
    )


def _reset_peak(device: torch.device) -> int:
    """The bytes that are held now, from which the next peak is measured: without the recordings of the run before.

    Bytes held, not in use: what a CUDA graph works with is not counted as in use when it is replayed.
    """
    sweep._recorded.cache_clear()
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_reserved(device)


def _peak(device: torch.device) -> int | None:
    """The most bytes that were held, once all work is done."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_reserved(device)
