"""Adapt-Pruner: the less a block changes what flows through it, the more of it goes.

Source: Wang et al., Adapt-Pruner, arXiv:2502.03460.

Axes: P parts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tasks.train_controller.allocators.problem import Part, Problem
from tasks.train_controller.allocators.search import Features, Found, Judge, Move, Searcher

MOST = 0.99  # no block goes as a whole
MET = 1 - 1e-9  # of the budget: sums of shares in floating point end a little beside it
LEAST_STEP = 1e-4  # ten thousand of them reach any budget
STILL = 1e-9  # rises below are rounding: a block of importance 1 would creep on for ever


@dataclass(frozen=True, kw_only=True)
class AdaptPruner(Searcher):
    """Sparsities rise in steps from zero: by `step` (Δ), less `amplitude` (A) times the block's importance.

    The importance of a block is −cos(its input, its output), the feature "cosine" of any of its parts, centred and
    divided by its largest absolute value over the blocks. It is not asked for a loss.
    """

    amplitude: float = 0.02
    step: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.amplitude < 1:
            raise ValueError(f"amplitude: {self.amplitude} given, valid is 0 < amplitude < 1")
        if not LEAST_STEP <= self.step < 1:
            raise ValueError(f"step: {self.step} given, valid is {LEAST_STEP:g} <= step < 1")

    def search(
        self,
        problem: Problem,
        judge: Judge,
        features: Features,
        *,
        seed: int = 0,
        on_move: Callable[[Move], None] | None = None,
    ) -> Found:
        importance = importances(cosines(problem.parts, features))
        return Found(levels=problem.project(self.shares(problem, importance)))

    def shares(self, problem: Problem, importance: Mapping[int, float]) -> list[float]:
        """Of the rungs of each part: the first that save the budget, or all that can be reached."""
        of_rungs_P = [cost * most for cost, most in zip(problem.unit_costs, problem.rungs, strict=True)]
        shares, rise = dict.fromkeys(importance, 0.0), 1.0
        while rise > STILL:
            of_parts = [shares[part.block] for part in problem.parts]
            if sum(saved * share for saved, share in zip(of_rungs_P, of_parts, strict=True)) >= MET * problem.budget:
                break
            risen = {block: self._risen(share, importance[block]) for block, share in shares.items()}
            shares, rise = risen, max(abs(risen[block] - share) for block, share in shares.items())
        return of_parts

    def _risen(self, share: float, importance: float) -> float:
        return min(max(share + self.step - self.amplitude * importance, 0.0), MOST)


def cosines(parts: Sequence[Part], features: Features) -> dict[int, float]:
    """By block. Raises ValueError for a part without the feature."""
    for part in parts:
        if "cosine" not in features.get(part, {}):
            raise ValueError(f"features: no cosine given for {part}, which Adapt-Pruner goes by")
    return {part.block: features[part]["cosine"] for part in parts}


def importances(cosine: Mapping[int, float]) -> dict[int, float]:
    """−cosine, centred, within −1 to 1: zeros where the blocks do not differ."""
    mean = sum(cosine.values()) / len(cosine)
    centred = {block: mean - each for block, each in cosine.items()}
    largest = max(map(abs, centred.values())) or 1.0
    return {block: each / largest for block, each in centred.items()}
