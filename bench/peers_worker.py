"""The half of a side that runs in the side's own environment: it prunes what it is told to, and measures that.

This module and the three that serve through it (`peers_llmcompressor`, `peers_modelopt`, `peers_espalier`) are run by
the interpreter of each environment, so all sides are timed and weighed by the same lines. It imports what every
environment has: torch, transformers, safetensors.

Jobs and answers are lines of JSON. Jobs come on stdin; answers go to the descriptor that `$ESPALIER_BENCH_ANSWERS`
numbers, since libraries print from the moment they are imported. A job names a folder (a checkpoint, and
`ids.safetensors` with the calibration windows), a method, a pattern, how many windows to use, and a file for the pruned
weights or null.

Axes: W windows, B windows of a batch, T tokens of a window.
"""

import ctypes
import gc
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.utils import logging

PROCESS = Path("/proc/self")
ANSWERS = "ESPALIER_BENCH_ANSWERS"
PACKAGES = ("torch", "transformers", "numpy")
IDS = "ids.safetensors"
CALIBRATION = "calibration"
WINDOWS_AT_ONCE = 4
TRIAL_TOKENS = 16

Prune = Callable[[PreTrainedModel, Sequence[Tensor], str, str], PreTrainedModel]  # model, ids, method, pattern


class NotOffered(Exception):  # noqa: N818 - an answer, not an error
    """This side has no such method, or not with this pattern; says why."""


def serve(prune: Prune, package: str) -> None:
    """Say the versions, then do each job that comes, until there are no more. A job that fails ends the process."""
    logging.disable_progress_bar()
    with os.fdopen(int(os.environ[ANSWERS]), "w", buffering=1) as answers:
        print(json.dumps({name: importlib.metadata.version(name) for name in (package, *PACKAGES)}), file=answers)
        for line in sys.stdin:
            print(json.dumps(do(prune, **json.loads(line))), file=answers)


def do(prune: Prune, folder: str, method: str, pattern: str, windows: int, into: str | None) -> dict[str, Any]:
    """Seconds, bytes at the peak above the loaded model, and the share of zeros; or why there are none."""
    model = load(Path(folder))
    ids_WT = load_file(Path(folder) / IDS)[CALIBRATION][:windows]
    dense = share_of_zeros(linear_weights(model))
    with torch.no_grad():
        model(ids_WT[:1, :TRIAL_TOKENS])  # what libraries allocate once belongs to no side
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # nor does what the last job freed
    (PROCESS / "clear_refs").write_text("5")  # "reset the peak resident set size", proc_pid_clear_refs(5)
    before, started = resident_bytes("VmRSS"), time.perf_counter()
    try:
        model = prune(model, ids_WT.split(WINDOWS_AT_ONCE), method, pattern)
    except NotOffered as reason:
        return {"not_run": str(reason)}
    seconds, peak = time.perf_counter() - started, resident_bytes("VmHWM") - before
    weights = linear_weights(model)
    zeros = share_of_zeros(weights)
    if zeros == dense:
        return {"not_run": f"it ran for {seconds:.1f} s and left every weight as it was"}
    if into is not None:
        save_file(weights, into)
    return {"seconds": seconds, "peak_bytes": peak, "zeros": zeros}


def load(folder: Path) -> PreTrainedModel:
    """In float32, with weights of its own: pages that are mapped from a file would count where they are first read."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def linear_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weight of every linear inside the decoder blocks, by the linear's name in the model."""
    return {
        f"model.layers.{name}": child.weight.detach().contiguous()
        for name, child in model.model.layers.named_modules()
        if isinstance(child, nn.Linear)
    }


def share_of_zeros(weights: dict[str, Tensor]) -> float:
    zeros = sum(int((weight_OI == 0).sum()) for weight_OI in weights.values())
    return zeros / sum(weight_OI.numel() for weight_OI in weights.values())


def resident_bytes(field: str) -> int:
    """`VmRSS` (now) or `VmHWM` (peak) of this process; as in `tasks.peak`, which this environment has not."""
    lines = (PROCESS / "status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(kilobytes) * 1024
