"""What each part costs alone: the loss when its rungs alone are changed, beside the loss when they are not.

If losses added up, this table would be the whole truth. They do not quite, but it costs few looks.

Axes: R rungs of a part, from none to all.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.train_controller.allocators.explore import HOPELESS, Trail
from tasks.train_controller.allocators.problem import Levels, Problem

Table = Sequence[NDArray[np.float64]]  # of each part the nats per token that its rungs add, (R + 1,)


def affordable(problem: Problem, looks: int) -> int:
    """How many numbers of rungs of every part can be looked at, beside none of them and the levels around."""
    return max(0, (looks - 1) // len(problem.parts) - 1)


def probe(problem: Problem, trail: Trail, points: int, *, around: Levels) -> Table:
    """How the loss differs from that of `around` when one part has other rungs gone, the others theirs of `around`.

    Looked at: none of a part's rungs, `points` numbers evenly spaced up to all, and between them straight lines; of
    parts that have no more rungs than that, all numbers. A single point is halfway from `around` to all, as losses rise
    steeply near the end, and what is beyond is HOPELESS. Raises Spent.
    """
    base = trail.loss(around)
    table = []
    for part, most in enumerate(problem.rungs):
        few = min(points, most)
        spaced = {-(-most * each // few) for each in range(1, few + 1)} if few > 1 else {(around[part] + most + 1) // 2}
        looked = sorted({0, around[part]} | spaced)
        added = [trail.loss((*around[:part], rungs, *around[part + 1 :])) - base for rungs in looked]
        table.append(np.interp(np.arange(most + 1), looked, added, right=HOPELESS))
    return table
