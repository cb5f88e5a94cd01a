"""Cuts by name, as CASRAP's controller chooses between them: `heads20`, `ffn30`, `depth25`.

The number is the share in percent that goes: of all head groups of the model, of the channels of each block, of the
blocks. What goes are the units of the lowest scores; how many heads each block loses is measured.

Axes: U units of one kind in a block.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.calibrate.importance.importance import BLOCKS
from tasks.model.units import units_of
from tasks.prune.structure.choose import choose_units
from tasks.prune.structure.profiles import Profile
from tasks.prune.structure.rises import Rises, least_rise

UNITS = {"heads": "head_groups", "ffn": "channels", "depth": BLOCKS}
USUAL = "heads10,heads20,heads30,ffn10,ffn20,ffn30,depth20"  # CASRAP's seven

Scores = Sequence[Mapping[str, Tensor]]  # of each block, by kind, (U,); "blocks" is a kind of one unit


@dataclass(frozen=True, kw_only=True)
class NamedCut:
    """`percent` of the units of a `kind` goes: "heads", "ffn" or "depth"."""

    kind: str
    percent: float

    def __post_init__(self) -> None:
        if self.kind not in UNITS or not 0 < self.percent < 100:
            raise ValueError(f"profiles: {self} given, valid is {', '.join(UNITS)} with a percentage, such as heads20")

    def __str__(self) -> str:
        return f"{self.kind}{self.percent:g}"

    @property
    def units(self) -> str:
        """The kind as scores have it."""
        return UNITS[self.kind]

    def profile(
        self, model: PreTrainedModel, scores: Scores, *, rises: Rises | None = None, round_to: int = 64
    ) -> Profile:
        """This cut of `model`, by scores of its kind (tasks.calibrate.importance).

        Head groups are few in a block: the share is of all blocks together, and one stays in each block. `rises`
        (tasks.prune.structure.rises) tell how many each block loses; without them all scores are taken to be of one
        scale, and the lowest go. Channels lose the share in every block, in steps of `round_to`. Shares are met as
        nearly as these steps allow.

        Raises ValueError for a share that is none, or more than can go, for a kind of unit that the model does not
        have, and for scores that do not fit.
        """
        share = self.percent / 100
        if self.units == BLOCKS:
            least_first = torch.cat([of_block[BLOCKS] for of_block in scores]).argsort(stable=True)
            number = self._number(len(scores), len(scores) - 1)
            return Profile(name=str(self), blocks=sorted(least_first[:number].tolist()))
        for of_block in units_of(model):
            of_block.of(self.units)  # raises, saying what there is
        shares = self._shares_of_blocks(scores, rises) if self.kind == "heads" else [share] * len(scores)
        try:
            kept = choose_units(model, scores, {self.units: shares}, round_to=round_to).kept
        except ValueError as error:
            raise ValueError(f"profiles: {self} given; {error}") from error
        return Profile(name=str(self), kept=kept)

    def _shares_of_blocks(self, scores: Scores, rises: Rises | None) -> list[float]:
        """What goes of each block so that the loss rises least, or all scores are lowest; the best of each stays."""
        counts = [len(of_block[self.units]) for of_block in scores]
        number = self._number(sum(counts), sum(counts) - len(counts))
        gone = (
            _lowest([of_block[self.units] for of_block in scores], number)
            if rises is None
            else least_rise(rises, number)
        )
        return [each / count for each, count in zip(gone, counts, strict=True)]

    def _number(self, count: int, most: int) -> int:
        """How many of `count` units go. Raises ValueError where that is none, or more than `most`."""
        number = round(self.percent / 100 * count)
        if not 1 <= number <= most:
            what = f"{count} {self.units.replace('_', ' ')}"
            valid = f"{self.kind}{100 / count:.4g} to {self.kind}{100 * most / count:.4g}" if most else "none"
            raise ValueError(f"profiles: {self} given, of the {what} of this model valid is {valid}")
        return number


def _lowest(scores: Sequence[Tensor], number: int) -> list[int]:
    """How many units go of each block, when those of the lowest scores go but the best of each block."""
    every = sorted(
        (score, block) for block, score_U in enumerate(scores) for score in score_U.sort().values[:-1].tolist()
    )
    going = [block for _, block in every[:number]]
    return [going.count(block) for block in range(len(scores))]


def parse_cuts(text: str) -> tuple[NamedCut, ...]:
    """`heads10,ffn30,depth25`. Raises ValueError for what is no cut, and for one that is given twice."""
    cuts = tuple(_parse(name.strip()) for name in text.split(","))
    names = [str(cut) for cut in cuts]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"profiles: {twice[0]} given {names.count(twice[0])} times, valid is each once")
    return cuts


def check_cuts(model: PreTrainedModel, cuts: Sequence[NamedCut], *, round_to: int = 64) -> None:
    """Raises ValueError for a cut that `model` cannot take, and for two that are the same, as steps round both alike.

    They are tried with scores that are all equal, without a text.
    """
    sizes: dict[tuple, NamedCut] = {}
    for cut in cuts:
        first = sizes.setdefault(_size(cut, model, round_to), cut)
        if first is not cut:
            raise ValueError(f"profiles: {first} and {cut} given, which are the same cut of this model; leave one out")


def usual_cuts(model: PreTrainedModel, *, round_to: int = 64) -> tuple[NamedCut, ...]:
    """Those of `USUAL` that `model` can take, each size once. Raises ValueError where there are none."""
    sizes: dict[tuple, NamedCut] = {}
    refusals = []
    for cut in parse_cuts(USUAL):
        try:
            sizes.setdefault(_size(cut, model, round_to), cut)
        except ValueError as error:
            refusals.append(error)
    if not sizes:
        raise refusals[0]
    return tuple(sizes.values())


def of_equal_scores(cut: NamedCut, model: PreTrainedModel, round_to: int) -> Profile:
    """The profile of `cut` where all units matter alike: as large as any, of whatever units. Raises as `profile`."""
    equal = [
        {kind: torch.zeros(units.count) for kind, units in of_block.kinds.items()} | {BLOCKS: torch.zeros(1)}
        for of_block in units_of(model)
    ]
    return cut.profile(model, equal, round_to=round_to)


def _size(cut: NamedCut, model: PreTrainedModel, round_to: int) -> tuple:
    """How much `cut` takes of each block where all units matter alike."""
    profile = of_equal_scores(cut, model, round_to)
    left = [(block, kind, len(kept_U)) for block, kinds in profile.kept.items() for kind, kept_U in kinds.items()]
    return (*profile.blocks, *left)


def _parse(name: str) -> NamedCut:
    found = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", name)
    if found is None:
        raise ValueError(f"profiles: {name!r} given, valid is {', '.join(UNITS)} with a percentage, such as heads20")
    return NamedCut(kind=found[1], percent=float(found[2]))
