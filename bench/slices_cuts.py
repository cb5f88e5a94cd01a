"""A run of bench.slices, and our side of it: units chosen by an importance, sliced away, and their readers repaired."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from bench.texts import Text
from tasks.calibrate.importance import IMPORTANCES
from tasks.calibrate.importance.importance import Scores
from tasks.model.anatomy import find_blocks
from tasks.model.load import load_model
from tasks.prune.structure.apply import slice_model
from tasks.prune.structure.choose import Choice, choose_units
from tasks.prune.structure.split import choose_split

BOTH, QUERIES, CHANNELS, FFN = "head groups and channels", "query heads and channels", "channels", "FFN"
KINDS = {  # of units, where the budget is a share of the blocks' parameters; of the FFN it is one of its channels
    BOTH: ("head_groups", "channels"),
    QUERIES: ("query_heads", "channels"),
    CHANNELS: ("channels",),
}
CUTS = (*KINDS, FFN)
SPLIT = (BOTH, QUERIES)  # between two kinds, by what each way loses on the windows
OURS = tuple(name for name in IMPORTANCES if name not in ("leave_one_out", "influence"))  # those of units, affordable
ROUND_TO = 2  # the models are narrow: with the usual 64 a tenth of a block is no step


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run. `recover_tokens`: trained afterwards, 0 for none."""

    cut: str
    importance: str
    budget: float
    repair: bool
    recover_tokens: int
    seed: int


class Espalier:
    """One model and its text; an importance looks at each seed's windows once."""

    def __init__(self, folder: Path, text: Text) -> None:
        self._folder, self._text = folder, text
        self._scores = cache(self._score)

    def make(self, cell: Cell) -> PreTrainedModel:
        """The model with the cell's cut."""
        model = load_model(self._folder)
        batches, scores = self._text.batches(cell.seed), self._scores(cell.importance, cell.seed)
        kept = choose_for(model, scores, cell, batches).kept
        slice_model(model, kept, batches if cell.repair else None, repair=cell.repair)
        return model

    def _score(self, importance: str, seed: int) -> Scores:
        return IMPORTANCES[importance]().score(load_model(self._folder), self._text.batches(seed))


def choose_for(model: PreTrainedModel, scores: Scores, cell: Cell, batches: Sequence[Tensor]) -> Choice:
    if cell.cut == FFN:
        return choose_units(model, scores, {"channels": cell.budget}, round_to=ROUND_TO)
    kinds = {"kinds": KINDS[cell.cut], "round_to": ROUND_TO}
    return choose_split(model, scores, cell.budget, batches, repair=cell.repair, **kinds)[0]


def block_parameters(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in find_blocks(model)[1].parameters())
