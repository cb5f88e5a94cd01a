"""The exact optimum of an additive table, by mixed-integer linear programming.

Axes: P parts, Z choices (a number of rungs of a part each).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
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

    Raises RuntimeError where the solver gives up.
    """
    unit = math.gcd(*problem.unit_costs)
    owner_Z = np.repeat(np.arange(len(table)), [len(added_R) for added_R in table])
    rungs_Z = np.concatenate([np.arange(len(added_R)) for added_R in table])
    saved_Z = np.array(problem.unit_costs)[owner_Z] // unit * rungs_Z
    one_each_PZ = owner_Z == np.arange(len(table))[:, None]
    solved = milp(
        np.concatenate(table),
        integrality=np.ones(len(owner_Z)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each_PZ.astype(float), 1, 1),
            LinearConstraint(saved_Z[None], problem.saved(problem.uniform()) // unit, problem.budget // unit),
        ],
        options={"mip_rel_gap": 0},
    )
    if solved.x is None:
        raise RuntimeError(f"milp: {solved.message}")
    chosen_Z = solved.x > 0.5
    return tuple(rungs_Z[chosen_Z].tolist())
