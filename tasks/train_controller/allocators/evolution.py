"""Evolution by level switches: a child has a few rungs less gone of one part, and more of another.

Source: Sieberling et al., EvoPress, arXiv:2410.14649; here the parents live on beside their children (mu + lambda), and
a switch may move more than one rung.
"""

from dataclasses import dataclass

import numpy as np

from tasks.train_controller.allocators.explore import Explorer, Trail
from tasks.train_controller.allocators.problem import Levels, Problem
from tasks.train_controller.allocators.search import Features

TRIES = 50  # at a switch that both parts have the rungs for
MOST = 1000  # children, parents and switches: with more there is no evolution, only waiting
IDLE = 20  # generations without a child that is new, after which there is nothing left to try


@dataclass(frozen=True, kw_only=True)
class Evolution(Explorer):
    """Of `parents` and their `children` those of the lowest loss are the next parents, `generations` times.

    A child differs from a parent by up to `switches`, each of up to a share `stride` of a part's rungs.
    """

    parents: int = 1
    children: int = 4
    generations: int = 500
    switches: int = 3
    stride: float = 0.2

    def __post_init__(self) -> None:
        if self.generations < 1:
            raise ValueError(f"generations: {self.generations} given, valid is 1 or more")
        for field in ("parents", "children", "switches"):
            if not 1 <= getattr(self, field) <= MOST:
                raise ValueError(f"{field}: {getattr(self, field)} given, valid is 1 to {MOST}")
        if not 0 < self.stride <= 1:
            raise ValueError(f"stride: {self.stride} given, valid is 0 < stride <= 1")

    def explore(self, problem: Problem, trail: Trail, features: Features, seed: int) -> None:
        random = np.random.default_rng(seed)
        alive = {problem.uniform(): trail.look(problem.uniform())}
        known, idle = set(alive), 0
        for _ in range(self.generations):
            if idle == IDLE:
                break
            mothers = list(alive)
            chosen = random.integers(len(mothers), size=self.children)
            children = [self._child(problem, mothers[mother], random) for mother in chosen]
            idle = idle + 1 if known.issuperset(children) else 0
            known.update(children)
            alive |= {child: trail.look(child) for child in children if child not in alive}
            alive = dict(sorted(alive.items(), key=lambda each: each[1])[: self.parents])

    def _child(self, problem: Problem, levels: Levels, random: np.random.Generator) -> Levels:
        few = min(random.integers(1, self.switches + 1, 2))  # of two draws the lower: one switch is the usual
        for _ in range(few):
            levels = self._switched(problem, levels, random)
        return levels

    def _switched(self, problem: Problem, levels: Levels, random: np.random.Generator) -> Levels:
        """As they are where no switch is found, as with a single part."""
        for _ in range(TRIES):
            donor, receiver = random.integers(len(levels), size=2).tolist()
            most = max(1, round(self.stride * problem.rungs[receiver]))
            moved = problem.moved(levels, donor, receiver, int(random.integers(1, most + 1)))
            if moved is not None:
                return moved
        return levels
