"""What an allocator decides: how many rungs go of each part of a model, so that together they save a budget.

A part is the attention or the FFN of one block. A rung is the least that can go of it: a head group, a step of
channels, a share of the weights of its linears. Rungs of one part save equal amounts, so a budget is met with whole
rungs and integers alone (tasks.prune.allocation.project); nothing here knows what a rung is.

Axes: P parts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from tasks.prune.allocation import project

Levels = tuple[int, ...]  # the rungs that go of each part, in the order of the parts


@dataclass(frozen=True, kw_only=True)
class Part:
    """The attention or the FFN of a block."""

    block: int
    kind: Literal["attention", "ffn"]

    def __str__(self) -> str:
        return f"{self.block}.{self.kind}"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The parts that may lose something, what their rungs save, and how much is to be saved.

    `rungs`: the most that may go of each part. `saves`: by cost (parameters, flops, bytes, kv), what one rung of each
    part saves of it; `totals`: what all blocks together have of it now. `peaks`: the numbers that each part hands to
    its reader for a token, and how many fewer after each rung; empty where a rung changes no width. `budget`: what is
    to be saved of `cost`.

    Raises ValueError for sequences of other lengths, and for a budget that no levels meet: it says what they allow.
    """

    parts: tuple[Part, ...]
    rungs: tuple[int, ...]
    saves: Mapping[str, tuple[int, ...]]
    totals: Mapping[str, int]
    peaks: tuple[tuple[int, int], ...] = ()
    cost: str
    budget: int

    def __post_init__(self) -> None:
        for name, each in {"rungs": self.rungs, "peaks": self.peaks or self.parts, **self.saves}.items():
            if len(each) != len(self.parts):
                raise ValueError(f"{name}: {len(each)} given, the model has {len(self.parts)} parts")
        if self.cost not in self.saves:
            raise ValueError(f"cost: {self.cost} given, valid is {', '.join(self.saves)}")
        most, least = self.saved(self.rungs), min(self.unit_costs)
        if not least <= self.budget <= most:
            total = self.totals[self.cost]
            valid = f"{least / total:.4g} to {most / total:.4g}"
            raise ValueError(f"budget: {self.budget / total:.4g} of the {self.cost} given, valid is {valid}")

    @property
    def unit_costs(self) -> tuple[int, ...]:
        """What one rung of each part saves of the cost of the budget."""
        return self.saves[self.cost]

    def saved(self, levels: Levels, cost: str | None = None) -> int:
        """Of the cost of the budget, or of another."""
        return sum(each * rungs for each, rungs in zip(self.saves[cost or self.cost], levels, strict=True))

    def peak(self, levels: Levels) -> int:
        """The most numbers that a part hands to its reader for a token."""
        return max(full - each * rungs for (full, each), rungs in zip(self.peaks, levels, strict=True))

    def meets(self, levels: Levels) -> bool:
        """Whether these levels are within the rungs, and save the budget but for less than the dearest rung."""
        within = all(0 <= rungs <= most for rungs, most in zip(levels, self.rungs, strict=True))
        return within and 0 <= self.budget - self.saved(levels) < max(self.unit_costs)

    def project(self, wanted_P: Sequence[float | Fraction]) -> Levels:
        """The levels that meet the budget as near as can be to `wanted_P`, a share of the rungs of each part."""
        return tuple(project(wanted_P, self.rungs, self.budget, costs=self.unit_costs))

    def uniform(self) -> Levels:
        """The same share of every part's rungs, but for rounding."""
        return self.project([Fraction(self.budget, self.saved(self.rungs))] * len(self.parts))

    def moved(self, levels: Levels, donor: int, receiver: int, rungs: int = 1) -> Levels | None:
        """Levels with `rungs` given back to the part `receiver`, and as many more gone of `donor` as the budget takes.

        At least one goes: where `rungs` do not pay for it, as few more are given back as do. None where the two parts
        have not as many.
        """
        costs = self.unit_costs
        rest = self.budget - self.saved(levels)
        back = max(rungs, math.ceil((costs[donor] - rest) / costs[receiver]))
        more = (rest + back * costs[receiver]) // costs[donor]
        if donor == receiver or back > levels[receiver] or levels[donor] + more > self.rungs[donor]:
            return None
        changed = {donor: levels[donor] + more, receiver: levels[receiver] - back}
        return tuple(changed.get(part, level) for part, level in enumerate(levels))
