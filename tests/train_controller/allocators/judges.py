"""Made-up problems whose optimum is known, and judges that count what they are asked for."""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from tasks.train_controller.allocators.problem import Levels, Part, Problem
from tasks.train_controller.allocators.search import Features, Judge, Rises

TOKENS = 8  # of a look, a window each


class MadeUp(Judge):
    """`loss` of levels on every window, give or take what that window has of its own for these levels.

    `problem`: whose rungs it tells the rises of; `a_problem()` unless the loss was made of another.
    """

    def __init__(
        self,
        loss: Callable[[Levels], float],
        looks: int = 10_000,
        windows: int = TOKENS,
        noise: float = 0.0,
        seed: int = 0,
        problem: Problem | None = None,
    ) -> None:
        super().__init__(windows, 1, looks * windows)
        self.loss, self.looks, self.noise, self.seed = loss, looks, noise, seed
        self.problem = problem or getattr(loss, "problem", None) or a_problem()
        self.seen: dict[Levels, tuple[float, ...]] = {}  # what was looked at in full

    @property
    def looked(self) -> float:
        """Looks that were paid for."""
        return self.tokens / self.windows

    def held_out_losses(self, levels: Levels) -> tuple[float, ...]:
        return self._of_windows(levels, 1)

    def _losses(self, levels: Levels, fold: int | None) -> tuple[float, ...]:
        losses_W = self._of_windows(levels, 0)
        if fold is None:
            self.seen[levels] = losses_W
        return losses_W if fold is None else losses_W[fold :: self.folds]

    def _rises(self, levels: Levels, fold: int | None) -> Rises:
        """Of each rung what it adds to the loss where the other parts are as they are, not only to first order."""
        parts = []
        for place, most in enumerate(self.problem.rungs):
            losses = [self.loss((*levels[:place], rungs, *levels[place + 1 :])) for rungs in range(most + 1)]
            with np.errstate(invalid="ignore"):  # of infinity and infinity
                parts.append(np.diff(losses))
        return Rises(loss=float(np.mean(self._losses(levels, fold))), parts=parts)

    def _of_windows(self, levels: Levels, side: int) -> tuple[float, ...]:
        own = np.random.default_rng([self.seed, side, *levels]).standard_normal(self.windows)
        hard = np.random.default_rng([self.seed, side]).standard_normal(self.windows)
        return tuple((self.loss(levels) + hard + self.noise * own).tolist())


def a_problem(blocks: int = 3, rungs: int = 4, share: float = 0.4, ffn_cost: int = 2, **changes) -> Problem:
    """Attention and FFN of every block; a rung of an FFN saves `ffn_cost` parameters, one of attention 1 and a KV."""
    parts = tuple(Part(block=block, kind=kind) for block in range(blocks) for kind in ("attention", "ffn"))
    saves = {"parameters": (1, ffn_cost) * blocks, "kv": (3, 0) * blocks}
    totals = {cost: 2 * rungs * sum(each) for cost, each in saves.items()}
    given = {"cost": "parameters", "budget": round(share * rungs * sum(saves["parameters"]))} | changes
    return Problem(parts=parts, rungs=(rungs,) * len(parts), saves=saves, totals=totals, **given)


def additive(problem: Problem, seed: int = 0, power: float = 2.0) -> Callable[[Levels], float]:
    """Every part has a weight of its own: the share of its rungs that are gone, to the `power`, times that."""
    weights_P = np.random.default_rng(seed).lognormal(0, 1, len(problem.parts))

    def loss(levels: Levels) -> float:
        return float(weights_P @ np.divide(levels, problem.rungs) ** power)

    loss.problem = problem
    return loss


def interacting(problem: Problem, seed: int = 0) -> Callable[[Levels], float]:
    """As additive, and neighbours that are both cut hurt more than each does."""
    alone = additive(problem, seed, power=1.5)
    weights_P = np.random.default_rng([seed, 1]).lognormal(0, 1, len(problem.parts))

    def loss(levels: Levels) -> float:
        share_P = np.divide(levels, problem.rungs)
        return alone(levels) + float(weights_P[1:] @ (share_P[1:] * share_P[:-1]))

    loss.problem = problem
    return loss


def all_levels(problem: Problem) -> Iterator[Levels]:
    """All that meet the budget and save no less of it than uniform ones do."""
    least = problem.saved(problem.uniform())
    every = product(*(range(most + 1) for most in problem.rungs))
    return (levels for levels in every if problem.meets(levels) and problem.saved(levels) >= least)


def some_features(problem: Problem, seed: int = 0) -> Features:
    """A cosine of each block, depth, kind and cost of each part, and a number that says nothing."""
    random = np.random.default_rng(seed)
    cosine = random.uniform(0.5, 1, len(problem.parts)).tolist()
    return {
        part: {
            "cosine": cosine[part.block],
            "depth": part.block / 10,
            "is_ffn": float(part.kind == "ffn"),
            "share_parameters": cost / sum(problem.unit_costs),
            "noise": float(random.normal()),
        }
        for part, cost in zip(problem.parts, problem.unit_costs, strict=True)
    }
