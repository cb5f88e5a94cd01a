"""The stages that the benchmark measures, in a process of their own: what each took, on a line of JSON."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from bench.larger_than_memory_table import Measured
from tasks.evaluate.task import evaluate
from tasks.handles import Checkpoint, EvaluationRow, Packed, Pruned, Tokens
from tasks.model.load import fingerprint
from tasks.peak import forget_peak, resident_bytes
from tasks.prune import PRUNERS
from tasks.prune.shards import Shards
from tasks.prune.task import pack, prune
from tasks.prune.weight.lowrank import LowRank
from tasks.prune.weight.pattern import NM
from tasks.prune.weight.recipe import Recipe
from tasks.prune.weight.reconstruct import Reconstruct
from tasks.prune.weight.refit import Refit
from tasks.prune.weight.wanda import Wanda
from tasks.record import home

DENSE = "dense"
VOCABULARY, WINDOW = 3072, 128
PATTERN = NM(n=2, m=4)
RECIPES = {name: Recipe(pruner=pruner(), pattern=PATTERN) for name, pruner in PRUNERS.items()} | {
    "wanda+permute": Recipe(pruner=Wanda(), pattern=PATTERN, permute=True),
    "wanda+refit": Recipe(pruner=Wanda(), pattern=PATTERN, update=Refit(drift=0.5)),
    "wanda+reconstruct": Recipe(pruner=Wanda(), pattern=PATTERN, reconstruct=Reconstruct(epochs=1)),
    "wanda+low_rank": Recipe(pruner=Wanda(), pattern=PATTERN, low_rank=LowRank(rounds=1)),
}


def main(method: str, model: str, windows: int, evaluation_windows: int, only: str | None = None) -> None:
    """Print a `Measured` for each stage of `method`; DENSE is evaluated as it is. `only` "prune": nothing after it."""
    dense = Checkpoint(hash=fingerprint(Path(model)), folder=str(Path(model).absolute()))
    evaluation = {"tokens": random_tokens(evaluation_windows, seed=1, flat=True), "subject": method, "device": "cpu"}
    if method == DENSE:
        measure(method, "evaluate", evaluate.fn, checkpoint=dense, **evaluation)
        return
    pruned = measure(
        method,
        "prune",
        prune.fn,
        model=dense,
        calibration=random_tokens(windows, seed=0),
        recipe=RECIPES[method],
        allocation=None,
        device="cpu",
    )
    if only is None:
        packed = measure(method, "pack", pack.fn, checkpoint=pruned.checkpoint, pattern=PATTERN, allocation=None)
        measure(method, "evaluate", evaluate.fn, checkpoint=packed.checkpoint, **evaluation)


def measure(method: str, stage: str, compute: Callable[..., Any], **inputs: Any) -> Any:
    """Compute, and print what it took."""
    forget_peak()
    started = time.perf_counter()
    made: Pruned | Packed | EvaluationRow = compute(**inputs)
    measured = Measured(
        method=method,
        stage=stage,
        seconds=time.perf_counter() - started,
        peak_bytes=resident_bytes("VmHWM"),
        hash=None if isinstance(made, EvaluationRow) else made.checkpoint.hash,
        nll=made.nll if isinstance(made, EvaluationRow) else None,
    )
    print(json.dumps(asdict(measured)), flush=True)
    return made


def random_tokens(windows: int, seed: int, flat: bool = False) -> Tokens:
    ids = torch.randint(VOCABULARY, (windows, WINDOW), generator=torch.Generator().manual_seed(seed))
    with home.store("tokens") as draft:
        save_file({"ids": ids.flatten() if flat else ids}, draft.path / "tokens.safetensors")
    counts = {"documents": 1, "text_bytes": 1, "tokens": ids.numel(), "windows": windows, "window": WINDOW}
    counts |= {"scored_bytes": 1}
    return Tokens(hash=draft.stored.hash, folder=draft.stored.folder, source="random", dataset_hash="", **counts)


def make_checkpoint(folder: Path, blocks: int, width: int) -> int:
    """A Llama with random weights, written a shard at a time, unless it is there; its size in bytes."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=11 * width // 4,
        num_hidden_layers=blocks,
        num_attention_heads=width // 64,
        tie_word_embeddings=True,
        dtype="float32",
    )
    with torch.device("meta"):
        shapes = {name: parameter.shape for name, parameter in LlamaForCausalLM(config).named_parameters()}
    size = sum(4 * shape.numel() for shape in shapes.values())
    if (folder / "model.safetensors.index.json").is_file():
        return size
    config.save_pretrained(folder)
    generator, file_of = torch.Generator().manual_seed(0), dict[str, str]()
    shards = Shards(folder, "model", metadata={"format": "pt"})
    for name, shape in shapes.items():
        weight = torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=generator) * 0.02
        file_of[name] = shards.add({name: weight})
    shards.finish()
    index = {"metadata": {"total_size": size}, "weight_map": file_of}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return size


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
