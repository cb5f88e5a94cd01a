"""Every method and pattern on one subject: the sides take turns, and what they made is judged here.

Axes: B windows of a batch, T tokens, D model width, O outputs, I inputs of a linear.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.models import WINDOW
from bench.peers_environments import NotInstalled
from bench.peers_sides import OURS, Failed, Side
from bench.peers_subjects import CALIBRATION_WINDOWS, HELD_OUT_WINDOWS, Subject
from tasks.evaluate.perplexity import perplexity

CASES = (
    ("magnitude", "50%@matrix"),
    ("magnitude", "2:4"),
    ("wanda", "50%"),
    ("wanda", "2:4"),
    ("sparsegpt", "50%"),
    ("sparsegpt", "2:4"),
)
WARM_UP_WINDOWS = 4


@dataclass(frozen=True, kw_only=True)
class PeerRow:
    """One row per subject, method, pattern and side. What is None was not run, or means nothing for this subject."""

    model: str
    method: str
    pattern: str
    side: str
    not_run: str | None  # why
    times_s: list[float]  # each round
    peak_bytes: list[int]  # each round, above the loaded model
    zeros: float | None  # share of the weights
    iou: dict[str, float]  # of its keeps with those of each of our orders
    error: float | None  # ||h' - h||² / ||h||² of the last hidden states on held-out ids
    ppl: float | None


def compare(name: str, subject: Subject, sides: Sequence[Side], rounds: int, folder: Path) -> Iterator[list[PeerRow]]:
    """CASES in turn, a row for each side. In `folder`, the checkpoint is handed over and results come back."""
    subject.hand_over(folder)
    judge = Judge(subject)
    for method, pattern in CASES:
        answers = take_turns(name, sides, method, pattern, rounds, folder)
        made = {side: load_file(result_of(folder, side)) for side, each in answers.items() if "not_run" not in each[0]}
        ours = {side: made[side] for side in OURS if side in made}
        yield [
            PeerRow(
                model=name,
                method=method,
                pattern=pattern,
                side=side,
                not_run=answers[side][0].get("not_run"),
                times_s=[answer["seconds"] for answer in answers[side] if side in made],
                peak_bytes=[answer["peak_bytes"] for answer in answers[side] if side in made],
                zeros=answers[side][0].get("zeros"),
                iou={order: iou_of_keeps(made[side], ours[order]) for order in ours} if side in made else {},
                **(judge.judge(made[side]) if side in made else {"error": None, "ppl": None}),
            )
            for side in answers
        ]


def take_turns(
    name: str, sides: Sequence[Side], method: str, pattern: str, rounds: int, folder: Path
) -> dict[str, list[dict[str, Any]]]:
    """Side -> its answer of each round; every second round goes backwards. Who cannot is asked once.

    A side warms up on a few windows.
    """
    job = {"folder": str(folder), "method": method, "pattern": pattern}
    answers: dict[str, list[dict[str, Any]]] = {}
    for side in sides:
        answer = ask(side, job | {"windows": WARM_UP_WINDOWS, "into": None})
        answers[side.name] = [answer] if "not_run" in answer else []
    able = [side for side in sides if not answers[side.name]]
    for number in range(rounds):
        for side in able if number % 2 == 0 else reversed(able):
            into = str(result_of(folder, side.name)) if number == 0 else None
            answers[side.name].append(side.do(job | {"windows": CALIBRATION_WINDOWS[name], "into": into}))
    return answers


def ask(side: Side, job: dict[str, Any]) -> dict[str, Any]:
    """The answer, where that the side cannot be installed or fails is one too."""
    try:
        return side.do(job)
    except NotInstalled as reason:
        return {"not_run": f"it could not be installed: {reason}"}
    except Failed as reason:
        return {"not_run": f"it failed: {reason}"}


def result_of(folder: Path, side: str) -> Path:
    return folder / f"{side}.safetensors"


def iou_of_keeps(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Intersection over union over all linears; a keep is where a pruned weight is not zero."""
    common = sum(int(((one[name] != 0) & (other[name] != 0)).sum()) for name in one)
    either = sum(int(((one[name] != 0) | (other[name] != 0)).sum()) for name in one)
    return common / either


class Judge:
    """The dense model's hidden states on held-out ids, and how far pruned weights lead away from them."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.model = subject.load()
        self.held_out = subject.held_out()
        self.dense_BTD = self._hidden()

    def judge(self, weights: dict[str, Tensor]) -> dict[str, float | None]:
        """`error` and, of a trained model, `ppl` with these weights in the linears of the blocks."""
        for name, weight_OI in weights.items():
            self.model.get_submodule(name).weight.data.copy_(weight_OI)
        error = (self._hidden() - self.dense_BTD).square().sum() / self.dense_BTD.square().sum()
        ppl = perplexity(self.model, self.held_out, WINDOW).ppl if self.subject.trained else None
        return {"error": error.item(), "ppl": ppl}

    @torch.no_grad()
    def _hidden(self) -> Tensor:
        ids_BT = self.held_out[: HELD_OUT_WINDOWS * WINDOW].reshape(-1, WINDOW)
        return self.model.base_model(ids_BT, use_cache=False).last_hidden_state.double()
