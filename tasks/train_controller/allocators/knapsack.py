"""The exact optimum of an additive table, by mixed-integer linear programming.

Axes: P parts, R rungs from none to all, Z choices (a number of rungs of a part each).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from tasks.train_controller.allocators.explore import Explorer, Trail
from tasks.train_controller.allocators.probes import Table, affordable, probe
from tasks.train_controller.allocators.problem import Levels, Problem
from tasks.train_controller.allocators.search import Features


@dataclass(frozen=True, kw_only=True)
class Knapsack(Explorer):
    """The levels of the lowest loss, were losses to add up: each part is looked at alone, at `points` rungs of it.

    Where looks are too few for that, at as many as they allow. `around`: what the other parts have lost meanwhile,
    nothing ("dense") or as much as in uniform levels ("uniform"), near which the budget is.
    """

    points: int = 8
    around: Literal["dense", "uniform"] = "uniform"

    def __post_init__(self) -> None:
        if self.points < 1:
            raise ValueError(f"points: {self.points} given, valid is 1 or more")
        if self.around not in ("dense", "uniform"):
            raise ValueError(f"around: {self.around} given, valid is dense, uniform")

    def explore(self, problem: Problem, trail: Trail, features: Features, seed: int) -> None:
        around = problem.uniform()
        trail.look(around)
        if self.around == "dense":
            around = (0,) * len(around)
        points = min(self.points, affordable(problem, trail.judge.looks_left - 1))  # one is for what is found
        if points:
            trail.look(cheapest(problem, probe(problem, trail, points, around=around)))


def cheapest(problem: Problem, table: Table) -> Levels:
    """Of all levels that save the budget, and no less of it than uniform ones do, those of the least sum.

    Of parts whose rungs cost the same only the number of rungs in all counts for the budget, so these are merged first:
    a whole Llama has two kinds of them. Raises RuntimeError where the solver gives up.
    """
    alike = {
        cost: [part for part, each in enumerate(problem.unit_costs) if each == cost] for cost in problem.unit_costs
    }
    merged = [merge([table[part] for part in parts]) for parts in alike.values()]
    totals = _totals(problem, list(alike), [each.least_R for each in merged])
    levels = [0] * len(table)
    for parts, each, total in zip(alike.values(), merged, totals, strict=True):
        for part, rungs in zip(parts, each.divided(total), strict=True):
            levels[part] = rungs
    return tuple(levels)


@dataclass(frozen=True, kw_only=True)
class Merged:
    """Several parts as if they were one: the least sum for each number of rungs in all, and who has how many then."""

    least_R: NDArray[np.float64]
    last_R: tuple[NDArray[np.int64], ...]  # for every part but the first: its own rungs, by those up to it

    def divided(self, rungs: int) -> list[int]:
        """Of each part, where so many rungs go of all."""
        own = []
        for last_R in reversed(self.last_R):
            own.append(int(last_R[rungs]))
            rungs -= own[-1]
        return [rungs, *reversed(own)]


def merge(table: Table) -> Merged:
    """One part after the other: of a number of rungs the last part has each share once, those before it the rest."""
    least_R, last = table[0], []
    for added_R in table[1:]:
        sums_RR = np.full((len(least_R) + len(added_R) - 1, len(added_R)), np.inf)
        for rungs, added in enumerate(added_R):
            sums_RR[rungs : rungs + len(least_R), rungs] = least_R + added
        last.append(sums_RR.argmin(1))
        least_R = sums_RR.min(1)
    return Merged(least_R=least_R, last_R=tuple(last))


def _totals(problem: Problem, costs: Sequence[int], table: Table) -> list[int]:
    """For each cost of a rung, how many rungs go of all parts that have it."""
    unit = math.gcd(*costs)
    owner_Z = np.repeat(np.arange(len(table)), [len(least_R) for least_R in table])
    rungs_Z = np.concatenate([np.arange(len(least_R)) for least_R in table])
    saved_Z = np.array(costs)[owner_Z] // unit * rungs_Z
    one_each_PZ = owner_Z == np.arange(len(table))[:, None]
    least, most = problem.saved(problem.uniform()) // unit, problem.budget // unit
    solved = milp(
        np.concatenate(table),
        integrality=np.ones(len(owner_Z)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each_PZ.astype(float), 1, 1),
            LinearConstraint(saved_Z[None], least - 0.5, most + 0.5),  # whole sums: room for the solver's rounding
        ],
        options={"mip_rel_gap": 0},
    )
    if solved.x is None:
        raise RuntimeError(f"milp: {solved.message}")
    return rungs_Z[solved.x > 0.5].tolist()
