"""Random search: levels around uniform ones, drawn without regard to what was found before."""

from dataclasses import dataclass

import numpy as np

from tasks.train_controller.allocators.explore import Explorer, Trail
from tasks.train_controller.allocators.problem import Problem
from tasks.train_controller.allocators.search import Features


@dataclass(frozen=True, kw_only=True)
class RandomSearch(Explorer):
    """The share of each part is normal around that of uniform levels, by up to `spread`: anew for each of `draws`."""

    draws: int = 1000
    spread: float = 0.3

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"draws: {self.draws} given, valid is 1 or more")
        if not 0 < self.spread <= 1:
            raise ValueError(f"spread: {self.spread} given, valid is 0 < spread <= 1")

    def explore(self, problem: Problem, trail: Trail, features: Features, seed: int) -> None:
        random = np.random.default_rng(seed)
        start_P = np.divide(problem.uniform(), problem.rungs)
        trail.look(problem.uniform())
        for _ in range(self.draws):
            spread = self.spread * random.uniform()
            trail.look(problem.project((start_P + spread * random.standard_normal(start_P.size)).tolist()))
