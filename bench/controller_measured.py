"""The lines of bench.controller, and what they say: a table of prompts × actions, and what was chosen in it.

A line of a piece of work has its `cell`. What a cell was measured with (the model, the prompts, the actions, how often)
is told by the hash `setup`, so that lines of two starts are mixed only where both measured the same.

Axes: P prompts, A actions.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.controller_subjects import AGAIN
from tasks.train_controller.learn.table import Table
from tasks.train_controller.observation import FEATURES
from tasks.train_controller.rows import EpisodeRow, PromptRow

Line = dict[str, Any]
MEASURE, LEARN, LIVE, SWEEP = "measure", "learn", "live", "sweep"
OF_ACTIONS = ("rise", "kl", "ratio", "switch_ms", "decode_ms", "cache_bytes")  # of each action in turn


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A piece of work. `of`: a prompt, or who learns; `prompts`, `target`: that were learned from, and with."""

    setup: str
    part: str  # MEASURE, LEARN, LIVE or SWEEP
    of: str
    prompts: int = 0
    target: float = 0.0
    floor: float = 0.0
    seed: int = 0


def setup_of(facts: Line) -> str:
    """12 hex digits, equal for the same facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def of_part(lines: Sequence[Line], setup: str, part: str) -> list[Line]:
    """The lines of the cells of a part."""
    found = [line for line in lines if "cell" in line]
    return [line for line in found if (line["cell"]["setup"], line["cell"]["part"]) == (setup, part)]


def line_of(prompt: PromptRow, episodes: Sequence[EpisodeRow]) -> Line:
    """What was measured of a prompt, with six digits."""
    state = json.loads(prompt.features)
    return {
        "split": prompt.split,
        "source": prompt.source,
        "tokens": prompt.tokens,
        "ppl": _short(prompt.ppl),
        "state": [_short(state[name]) for name in FEATURES],
        "prefill_ms": _short(episodes[0].prefill_ms),
        **{field: [_short(getattr(episode, field)) for episode in episodes] for field in OF_ACTIONS},
    }


def table_from(lines: Sequence[Line], actions: Sequence[str], split: str) -> Table:
    """The prompts of a split, without the second "none"."""
    chosen = [line for line in lines if line["split"] == split]
    taken = [number for number, action in enumerate(actions) if action != AGAIN]

    def column(field: str) -> Tensor:
        rows = [[line[field][number] for number in taken] for line in chosen]
        return torch.tensor(rows, dtype=torch.float64).reshape(len(chosen), len(taken))

    return Table(
        actions=tuple(actions[number] for number in taken),
        features=FEATURES,
        prompts=tuple(line["cell"]["of"] for line in chosen),
        sources=tuple(line["source"] for line in chosen),
        state_PF=torch.tensor([line["state"] for line in chosen], dtype=torch.float64).reshape(-1, len(FEATURES)),
        ratio_PA=column("ratio"),
        rise_PA=column("rise"),
        kl_PA=column("kl"),
    )


def _short(value: float) -> float:
    return float(f"{value:.6g}")
