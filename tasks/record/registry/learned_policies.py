"""What MLflow has of a run that trained policies: what they are worth, how they learned, and they themselves."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.record.names import plain
from tasks.train_controller.rows import ControllerRow, LearningRow

WORTH = ("ratio", "gain", "gain_low", "gain_high", "violations", "mean_rise", "regret", "decision_ms")
CURVES = ("reward", "held_out_reward", "loss", "epsilon")  # of a learner, by its steps


@dataclass(frozen=True, kw_only=True)
class Learned:
    """`folders`: of policies, by what they are called among the run's artifacts."""

    rows: Sequence[ControllerRow]
    looks: Sequence[LearningRow]
    folders: Mapping[str, Path]

    def metrics(self) -> dict[str, float]:
        """`dqn_floor_0.05_gain`, live `dqn_floor_0.05_live_gain`; what is not finite is left out."""
        found = {
            f"{plain(row.policy)}_floor_{row.floor:g}{'_live' if row.live else ''}_{name}": getattr(row, name)
            for row in self.rows
            for name in WORTH
        }
        return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}

    def curves(self) -> list[tuple[str, float, int]]:
        """The name, the value and the step of every point: `dqn_floor_0.05_seed_3_reward`."""
        points = [(f"{_said(look)}_{name}", getattr(look, name), look.step) for look in self.looks for name in CURVES]
        return [(name, value, step) for name, value, step in points if value is not None and math.isfinite(value)]


def _said(look: LearningRow) -> str:
    return f"{plain(look.learner)}_floor_{look.floor:g}_seed_{look.learner_seed}"
