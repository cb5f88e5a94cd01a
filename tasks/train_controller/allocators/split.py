"""All attentions lose one share of their rungs and all FFNs another: of a few such divisions the best."""

from dataclasses import dataclass
from fractions import Fraction

from tasks.train_controller.allocators.explore import Explorer, Trail
from tasks.train_controller.allocators.problem import Problem
from tasks.train_controller.allocators.search import Features

MOST = 1000  # points; further ones fall onto each other


@dataclass(frozen=True, kw_only=True)
class Split(Explorer):
    """Much as `slice` divides a budget that nobody searches (tasks.prune.structure.split): what all others must beat.

    `points`: divisions that are looked at, from the least that can go of the attentions to the most.
    """

    points: int = 9

    def __post_init__(self) -> None:
        if not 2 <= self.points <= MOST:
            raise ValueError(f"points: {self.points} given, valid is 2 to {MOST}")

    def explore(self, problem: Problem, trail: Trail, features: Features, seed: int) -> None:
        trail.look(problem.uniform())
        most = {kind: _of_kind(problem, kind) for kind in ("attention", "ffn")}
        if not all(most.values()):
            return  # of one kind alone there is one division, the uniform one
        least = max(Fraction(), Fraction(problem.budget - most["ffn"], most["attention"]))
        last = min(Fraction(1), Fraction(problem.budget, most["attention"]))
        for point in range(self.points):
            attention = least + (last - least) * Fraction(point, self.points - 1)
            shares = {"attention": attention, "ffn": (problem.budget - attention * most["attention"]) / most["ffn"]}
            trail.look(problem.project([shares[part.kind] for part in problem.parts]))


def _of_kind(problem: Problem, kind: str) -> int:
    """What all rungs of the parts of a kind save together."""
    own = zip(problem.parts, problem.unit_costs, problem.rungs, strict=True)
    return sum(cost * rungs for part, cost, rungs in own if part.kind == kind)
