"""Descent: every part's rungs move against the slope of the loss, of all parts at once, as far as the budget allows.

A search that only asks for losses learns about one or two parts from a look. A backward pass tells how the loss rises
with the next rung of every part, for the price of three looks however many parts there are; so a step moves them all.
Windows differ less from each other than parts do: a step goes by one fold of them, the next step by the next fold, and
the slopes of earlier ones still count (momentum), so a look pays for a step.

Axes: P parts, R rungs of a part.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from tasks.train_controller.allocators.explore import HOPELESS, Explorer, Trail
from tasks.train_controller.allocators.problem import Levels, Problem
from tasks.train_controller.allocators.search import RISES_LOOKS, Features, Judge, RungRises

WIDTHS = (0.1, 0.2, 0.3)  # shares of a part's rungs that a slope is taken over
LONGER, SHORTER, SHORTEST = 1.3, 0.5, 0.02  # the next step, by how the last one went; the shortest that is tried
ROUNDS = 2  # over all folds, from one look at all windows to the next


@dataclass(frozen=True, kw_only=True)
class Descent(Explorer):
    """From uniform levels by steps of `step` at first: by how much shares of rungs change, the root mean square.

    A step is kept, and the next one longer, if the loss of its fold falls; if not, the next one is half as long. Of the
    slopes before, a share `momentum` is left. A slope is the mean over a share of a part's rungs to either side, the
    first of `WIDTHS`; after a round over all folds in which no step was kept it is the next one, and the end where all
    had theirs. Every other round, and at the end, all windows are looked at: what has the lowest loss there is best.
    """

    step: float = 0.15
    momentum: float = 0.5

    def __post_init__(self) -> None:
        if not SHORTEST <= self.step <= 1:
            raise ValueError(f"step: {self.step} given, valid is {SHORTEST} to 1")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: {self.momentum} given, valid is 0 <= momentum < 1")

    def explore(self, problem: Problem, trail: Trail, features: Features, seed: int) -> None:
        self.descend(problem, trail.judge, trail.look)

    def descend(
        self,
        problem: Problem,
        judge: Judge,
        look: Callable[[Levels], object],
        value: Callable[[Levels, float], float] = lambda levels, loss: loss,
        priced: Callable[[RungRises], RungRises] = lambda rises: rises,
        keep: int = 0,
    ) -> NDArray[np.float64]:
        """Lower the `value` of levels and their loss, of which `priced` tells what each rung adds, given its rise.

        `look` is called with what is to be looked at in full; `keep` windows of the judge are left over. The slopes
        (P,) that it knew last; 0 where it knew none.
        """
        levels, step = problem.uniform(), self.step
        slope_P, looked, waiting = np.zeros(len(levels)), None, 0
        for count, fold in enumerate(cycle(range(judge.folds))):
            if count % (ROUNDS * judge.folds) == 0 and levels != looked:
                look(looked := levels)
            width = waiting // judge.folds
            if width == len(WIDTHS) or judge.windows_left < keep + judge.windows + (RISES_LOOKS + 1) * judge.size(fold):
                break
            rises = judge.rung_rises(levels, fold)
            new_P = steepness(problem, levels, priced(rises.parts), WIDTHS[width])
            slope_P = new_P if count == 0 else self.momentum * slope_P + (1 - self.momentum) * new_P
            share_P = np.divide(levels, problem.rungs) + step * downhill(problem, slope_P)
            moved = problem.project(np.clip(share_P, 0, 1).tolist())
            waiting += 1
            if moved == levels:
                step *= LONGER
            elif value(moved, mean_loss(judge.search_losses(moved, fold))) < value(levels, rises.loss):
                levels, step, waiting = moved, step * LONGER, 0
            else:
                step = max(step * SHORTER, SHORTEST)
        if levels != looked:
            look(levels)
        return slope_P


def steepness(problem: Problem, levels: Levels, rises: RungRises, width: float) -> NDArray[np.float64]:
    """Of each part (P,): nats per token by the share of the budget's cost that it loses more of.

    The mean rise of the rungs that are next to go, up to a share `width` of them, and of those that went last: one is
    as much too low as the other is too high (`Rises`). A part that has only one of the two goes by that.
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


def mean_loss(losses_W: Sequence[float]) -> float:
    """Nats per token, with no window worse than HOPELESS."""
    return float(np.minimum(losses_W, HOPELESS).mean())
