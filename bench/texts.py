"""Trained models with their texts, and results stored a line a run, so that a benchmark can be ended at any time."""

import json
import os
import shlex
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.models import DATA
from tasks.data.sources import read
from tasks.data.tokens import encode, sample_windows
from tasks.evaluate.perplexity import perplexity
from tasks.model.load import BUILTIN, load_tokenizer
from tasks.record.provenance import machine, versions

WINDOW, WINDOWS, WINDOWS_AT_ONCE = 256, 64, 4
STORIES = DATA / "text" / "tinystories_train_sample.jsonl"
MODELS = {  # name -> folder, text to calibrate on, text to score
    "stories260K": (DATA / "models" / "stories260K", f"{STORIES}[:400]", f"{STORIES}[400:787]"),
    "stories3M": (DATA / "models" / "stories3M", f"{STORIES}[:400]", f"{STORIES}[400:787]"),
    "builtin": (BUILTIN, "docs", "docs"),
}


@dataclass(frozen=True, kw_only=True)
class Text:
    """A model's texts, encoded: the ids to draw calibration windows from, and those that are scored."""

    calibration_T: Tensor
    evaluation_T: Tensor

    def batches(self, seed: int, windows: int = WINDOWS) -> tuple[Tensor, ...]:
        """So many windows of `WINDOW` tokens, drawn by the seed."""
        return sample_windows(self.calibration_T, WINDOW, windows, seed).split(WINDOWS_AT_ONCE)


def present() -> list[str]:
    """The models whose files are on this machine."""
    return [name for name, (folder, *_) in MODELS.items() if folder.exists()]


def read_text(name: str) -> Text:
    folder, calibration, evaluation = MODELS[name]
    tokens = partial(encode, tokenizer=load_tokenizer(folder))
    return Text(
        calibration_T=tokens(read(calibration, "calibration").texts),
        evaluation_T=tokens(read(evaluation, "evaluation").texts),
    )


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def add_line(file: Path, line: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line) + "\n")


def circumstances(module: str, model: PreTrainedModel, text: Text, windows: int = WINDOWS) -> dict[str, Any]:
    """The line that the lines of one start follow: when, how and where, and the dense model's score."""
    score = perplexity(model, text.evaluation_T, WINDOW)
    return {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "calibration": f"{windows} windows of {WINDOW} tokens",
        "dense": {"ppl": score.ppl, "nll": score.nll, "tokens": score.tokens, "windows": score.windows},
    }
