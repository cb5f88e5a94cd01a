"""The prompts as an environment that any learner for Gymnasium can act in: one prompt, one action, the end.

Axes: F features.
"""

from typing import Any

import gymnasium
import numpy as np
from torch import Tensor

from tasks.train_controller.learn.reward import Reward
from tasks.train_controller.learn.trials import Asked, Trials


class PromptEnv(gymnasium.Env[np.ndarray, np.int64]):
    """Observations are states (F,) from 0 to 1, actions the numbers of those of `asked`.

    An episode ends with its first step, so what is observed after it is still that prompt. `info` names the `prompt` by
    its number, and after the step its `ratio` and `rise`. A `Table` looks them up; in the live mode, with
    tasks.train_controller.measure.live_prompts.LivePrompts, the machine and the prompt are seen as they are then, and
    the prompt is really answered.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, asked: Asked, *, floor: float, reward: Reward | None = None) -> None:
        self.trials = Trials(asked, floor, reward or Reward())
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (len(asked.features),), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(asked.actions))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The next prompt; the same seed gives the same order. Raises ValueError for options: there are none."""
        if options:
            raise ValueError(f"options: {', '.join(options)} given, valid is none")
        super().reset(seed=seed)
        if seed is not None:
            self.trials.begin(self.np_random)
        state_F, info = self.trials.reset()
        return _observed(state_F), info

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Errors as `Trials.step`."""
        state_F, reward, terminated, truncated, info = self.trials.step(int(action))
        return _observed(state_F), reward, terminated, truncated, info


def _observed(state_F: Tensor) -> np.ndarray:
    return state_F.numpy().astype(np.float32)
