"""Descent: every part's rungs move against the slope of the loss, of all parts at once, as far as the budget allows.

A search that only asks for losses learns about one or two parts from a look. A backward pass tells how the loss rises
with the next rung of every part, for the price of three looks however many parts there are; so a step moves them all.

Axes: P parts, R rungs of a part.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.train_controller.allocators.explore import Explorer, Trail
from tasks.train_controller.allocators.problem import Levels, Problem
from tasks.train_controller.allocators.search import Features, Rises

WIDTHS = (0.1, 0.2, 0.3)  # shares of a part's rungs that a slope is taken over
LONGER, SHORTER, SHORTEST = 1.3, 0.5, 0.01  # the next step, by how the last one went; the shortest that is tried


@dataclass(frozen=True, kw_only=True)
class Descent(Explorer):
    """From uniform levels by steps of `step` at first: by how much shares of rungs change, the root mean square.

    A step that lowers the loss is followed by a longer one, a step that does not is tried again at half its length.
    A slope is the mean over a share of a part's rungs to either side, the first of `WIDTHS`; where no step is short
    enough to lower the loss, the next one's turn has come, and the end where all had theirs.
    """

    step: float = 0.15

    def __post_init__(self) -> None:
        if not 0 < self.step <= 1:
            raise ValueError(f"step: {self.step} given, valid is 0 < step <= 1")

    def explore(self, problem: Problem, trail: Trail, features: Features, seed: int) -> None:
        self.descend(problem, trail.look, trail.judge.rung_rises)

    def descend(
        self,
        problem: Problem,
        price: Callable[[Levels], float],
        rises: Callable[[Levels], Rises],
        enough: Callable[[], bool] = lambda: False,
    ) -> NDArray[np.float64]:
        """Lower `price`, of which `rises` tells what each rung adds, until nothing lowers it, or it is `enough`.

        The slopes (P,) that it knew last; 0 where it knew none.
        """
        levels = problem.uniform()
        least, tried, slope_P = price(levels), {levels}, np.zeros(len(levels))
        step, turn, stuck = self.step, 0, 0
        while stuck < len(WIDTHS) and not enough():
            slope_P = steepness(problem, levels, rises(levels), WIDTHS[turn % len(WIDTHS)])
            share_P, down_P = np.divide(levels, problem.rungs), downhill(problem, slope_P)
            for length in _shorter_and_shorter(step):
                moved = problem.project(np.clip(share_P + length * down_P, 0, 1).tolist())
                if moved not in tried:
                    tried.add(moved)
                    if (priced := price(moved)) < least:
                        levels, least, step, stuck = moved, priced, LONGER * length, 0
                        break
            else:
                step, turn, stuck = self.step, turn + 1, stuck + 1
        return slope_P


def steepness(problem: Problem, levels: Levels, rises: Rises, width: float) -> NDArray[np.float64]:
    """Of each part (P,): nats per token by the share of the budget's cost that it loses more of.

    The mean rise of the rungs that are next to go, up to a share `width` of them, and of those that went last: one is
    as much too low as the other is too high (`Judge.rung_rises`). A part that has only one of the two goes by that.
    Where something is no number, all slopes are 0.
    """
    slopes = []
    for gone, most, cost, rise_R in zip(levels, problem.rungs, problem.unit_costs, rises, strict=True):
        near = max(1, round(width * most))
        sides = [
            side_R.mean() for side_R in (rise_R[gone : gone + near], rise_R[max(0, gone - near) : gone]) if len(side_R)
        ]
        slopes.append(np.mean(sides) / cost * problem.saved(problem.rungs))
    slope_P = np.array(slopes)
    return slope_P if np.isfinite(slope_P).all() else np.zeros(len(slopes))


def downhill(problem: Problem, slope_P: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of rungs (P,) to move by: what they save of the budget's cost adds up to nothing.

    Their root mean square is 1, by what each part can save; or they are 0, where no slope differs.
    """
    weight_P = np.multiply(problem.unit_costs, problem.rungs) / problem.saved(problem.rungs)
    down_P = weight_P @ slope_P - slope_P
    size = np.sqrt(weight_P @ down_P**2)
    return down_P / size if size else down_P


def _shorter_and_shorter(step: float) -> Iterator[float]:
    while step >= SHORTEST:
        yield step
        step *= SHORTER
