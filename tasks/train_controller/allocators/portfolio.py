"""`auto`: several allocators share the looks, and windows that none of them looked at decide.

It is never regretted: unless the best is surely better than uniform levels, uniform levels it is.

Axes: W windows, N resamples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from scipy.stats import norm, t

from tasks.train_controller.allocators.adapt import AdaptPruner
from tasks.train_controller.allocators.descent import Descent
from tasks.train_controller.allocators.evolution import Evolution
from tasks.train_controller.allocators.explore import HOPELESS
from tasks.train_controller.allocators.knapsack import Knapsack
from tasks.train_controller.allocators.problem import Levels, Problem
from tasks.train_controller.allocators.rl_allocator import RLAllocator
from tasks.train_controller.allocators.rl_refine import RLRefine
from tasks.train_controller.allocators.search import (
    Candidate,
    Features,
    Found,
    Judge,
    Move,
    Rises,
    Searcher,
    Spent,
)
from tasks.train_controller.allocators.split import Split
from tasks.train_controller.allocators.uniform import Uniform

FREE: dict[str, Searcher] = {"uniform": Uniform(), "adapt": AdaptPruner()}
LOOKING: dict[str, Searcher] = {"milp": Knapsack(), "evolution": Evolution(), "rl": RLAllocator()}
MOST_RESAMPLES = 100_000  # each holds an index of every window
LEAST = 8  # windows held out, below which no bootstrap is to be trusted


@dataclass(frozen=True, kw_only=True)
class Portfolio(Searcher):
    """Uniform, Adapt-Pruner, a split, descent, MILP, evolution, RL-Allocator, and RL-Refine from the best of them.

    The split takes few looks, the descent as many as it needs, up to half of the rest; the others get equal shares of
    what is left. RL-Allocator goes the way of the descent again, at no cost, and on from there. Of all, that of the
    lowest mean loss on the windows held out is shipped, if the interval of its difference to uniform levels excludes
    zero: a paired bootstrap over windows with `resamples`, at `confidence` for all allocators together (Bonferroni).
    """

    least_windows: ClassVar[int] = 2 * LEAST

    resamples: int = 10_000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not 100 <= self.resamples <= MOST_RESAMPLES:
            raise ValueError(f"resamples: {self.resamples} given, valid is 100 to {MOST_RESAMPLES}")
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"confidence: {self.confidence} given, valid is 0.5 <= confidence < 1")

    def search(
        self,
        problem: Problem,
        judge: Judge,
        features: Features,
        *,
        seed: int = 0,
        on_move: Callable[[Move], None] | None = None,
    ) -> Found:
        moves: list[Move] = []
        found: dict[str, Levels] = {}
        tokens: dict[str, int] = {}

        def let(name: str, searcher: Searcher, looks: int) -> None:
            def tell(move: Move) -> None:
                moves.append(replace(move, allocator=name))
                if on_move is not None:
                    on_move(moves[-1])

            before = judge.tokens
            found[name] = searcher.search(problem, Ration(judge, looks), features, seed=seed, on_move=tell).levels
            tokens[name] = judge.tokens - before

        for name, searcher in FREE.items():
            let(name, searcher, 0)
        let("split", Split(), judge.looks_left // (len(LOOKING) + 2))
        let("descent", Descent(), judge.looks_left // 2)
        share = judge.looks_left // (len(LOOKING) + 1)
        for name, searcher in LOOKING.items():
            let(name, searcher, share)
        let("refine", RLRefine(start=_best(judge, list(found.values()))), judge.looks_left)
        candidates = self._held_out(judge, found, tokens, seed)
        chosen, why = _choice(candidates, len(judge.held_out_losses(found["uniform"])))
        idle = [name for name in found if name not in FREE and not tokens[name]]
        if idle:
            why += f"; nothing new was looked at by {', '.join(idle)}"
        return Found(levels=found[chosen], moves=tuple(moves), candidates=candidates, chosen=chosen, why=why)

    def _held_out(
        self, judge: Judge, found: dict[str, Levels], tokens: dict[str, int], seed: int
    ) -> tuple[Candidate, ...]:
        """All on the same resamples of the windows."""
        uniform_W = np.minimum(judge.held_out_losses(found["uniform"]), HOPELESS)
        random = np.random.default_rng(seed)
        resampled_NW = random.integers(len(uniform_W), size=(self.resamples, len(uniform_W)))
        tail = expanded((1 - self.confidence) / 2 / (len(found) - 1), len(uniform_W))
        candidates = []
        for name, levels in found.items():
            losses_W = np.minimum(judge.held_out_losses(levels), HOPELESS)
            low, high = np.quantile((losses_W - uniform_W)[resampled_NW].mean(1), (tail, 1 - tail)).tolist()
            held_out = float(losses_W.mean())
            candidates.append(
                Candidate(name=name, levels=levels, tokens=tokens[name], held_out=held_out, low=low, high=high)
            )
        return tuple(candidates)


def expanded(tail: float, windows: int) -> float:
    """What to cut off each end of a bootstrap so that `tail` is beyond it: resamples of few windows differ too little.

    Source: Hesterberg, 2015, "What Teachers Should Know About the Bootstrap", expanded percentile interval.
    """
    few = max(windows, 2)
    return float(norm.cdf((few / (few - 1)) ** 0.5 * t.ppf(tail, few - 1)))


class Ration(Judge):
    """Another judge, of whom no more than `looks` may be had."""

    def __init__(self, judge: Judge, looks: int) -> None:
        super().__init__(judge.windows, judge.length, judge.limit)
        self.judge = judge
        self._last = judge.windows_left - looks * judge.windows

    def held_out_losses(self, levels: Levels) -> tuple[float, ...]:
        return self.judge.held_out_losses(levels)

    def price(self, kind: str, levels: Levels, fold: int | None) -> int:
        return self.judge.price(kind, levels, fold)

    @property
    def tokens(self) -> int:
        return self.judge.tokens

    @property
    def windows_left(self) -> int:
        return self.judge.windows_left - self._last

    def _losses(self, levels: Levels, fold: int | None) -> tuple[float, ...]:
        return self.judge.search_losses(levels, fold)

    def _rises(self, levels: Levels, fold: int | None) -> Rises:
        return self.judge.rung_rises(levels, fold)


def _best(judge: Judge, levels: Sequence[Levels]) -> Levels:
    """On the windows of the search, of those that can still be looked at; else the first."""
    losses = []
    for each in levels:
        try:
            losses.append(float(np.mean(judge.search_losses(each))))
        except Spent:
            losses.append(np.inf)
    return levels[int(np.argmin(losses))]


def _choice(candidates: Sequence[Candidate], windows: int) -> tuple[str, str]:
    """The name of what is shipped, and why."""
    best = min(candidates, key=lambda each: each.held_out)
    uniform = candidates[0]
    if best.held_out == uniform.held_out:
        return uniform.name, f"uniform: none has a lower loss than its {uniform.held_out:.4f} on windows held out"
    difference = f"by {best.held_out - uniform.held_out:+.4f} nats per token ({best.low:+.4f} to {best.high:+.4f})"
    if windows < LEAST:
        return uniform.name, f"uniform: {best.name} differs {difference}, but on {windows} windows, fewer than {LEAST}"
    if best.high >= 0:
        return uniform.name, f"uniform: the lowest, {best.name}, differs {difference} on {windows} windows held out"
    return best.name, f"{best.name}: the lowest, it differs from uniform {difference} on {windows} windows held out"
