"""What the allocators that look at losses have in common: they remember the best, and stop when all looks are spent."""

import math
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.train_controller.allocators.problem import Levels, Part, Problem
from tasks.train_controller.allocators.search import Features, Found, Judge, Move, Searcher, Spent

HOPELESS = 100.0  # nats per token: what is above, infinite even, is as bad, and sums and differences stay finite


class Trail:
    """What a search has tried so far: its moves, and the best of its levels, uniform ones before there are any."""

    def __init__(self, problem: Problem, judge: Judge, on_move: Callable[[Move], None] | None = None) -> None:
        self.judge = judge
        self.best = problem.uniform()
        self.moves: list[Move] = []
        self._loss = self._reward = -math.inf
        self._on_move = on_move or (lambda move: None)

    def losses(self, levels: Levels) -> NDArray[np.float64]:
        """Nats per token on each window of the search, up to HOPELESS. Raises Spent."""
        return np.minimum(self.judge.search_losses(levels), HOPELESS)

    def loss(self, levels: Levels) -> float:
        """The mean over the windows. Raises Spent."""
        return float(self.losses(levels).mean())

    def note(
        self,
        levels: Levels,
        loss: float,
        *,
        reward: float | None = None,
        entropy: float | None = None,
        accepted: bool | None = None,
        donor: Part | None = None,
        receiver: Part | None = None,
    ) -> None:
        """A move to levels that meet the budget.

        They are the best where they were accepted, or, where nobody decides that, where their reward is the highest so
        far: the loss, negative, unless it is given.
        """
        value = -loss if reward is None else reward
        if value > self._reward if accepted is None else accepted:
            self.best, self._loss, self._reward = levels, loss, value
        move = Move(
            step=len(self.moves),
            levels=levels,
            loss=loss,
            best=self._loss,
            tokens=self.judge.tokens,
            reward=reward,
            entropy=entropy,
            accepted=accepted,
            donor=donor,
            receiver=receiver,
        )
        self.moves.append(move)
        self._on_move(move)

    def look(self, levels: Levels) -> float:
        """The loss of levels that meet the budget, noted. Raises Spent."""
        loss = self.loss(levels)
        self.note(levels, loss)
        return loss


@dataclass(frozen=True, kw_only=True)
class Explorer(Searcher):
    """An allocator that looks at losses."""

    def search(
        self,
        problem: Problem,
        judge: Judge,
        features: Features,
        *,
        seed: int = 0,
        on_move: Callable[[Move], None] | None = None,
    ) -> Found:
        trail = Trail(problem, judge, on_move)
        with suppress(Spent):
            self.explore(problem, trail, features, seed)
        return Found(levels=trail.best, moves=tuple(trail.moves))

    @abstractmethod
    def explore(self, problem: Problem, trail: Trail, features: Features, seed: int) -> None:
        """Note levels on the trail until there is nothing left to try, or Spent is raised."""
