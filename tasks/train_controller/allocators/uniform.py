"""The same share of every part: what every other allocator is compared with."""

from collections.abc import Callable
from dataclasses import dataclass

from tasks.train_controller.allocators.problem import Problem
from tasks.train_controller.allocators.search import Features, Found, Judge, Move, Searcher


@dataclass(frozen=True, kw_only=True)
class Uniform(Searcher):
    """It looks at nothing."""

    def search(
        self,
        problem: Problem,
        judge: Judge,
        features: Features,
        *,
        seed: int = 0,
        on_move: Callable[[Move], None] | None = None,
    ) -> Found:
        return Found(levels=problem.uniform())
