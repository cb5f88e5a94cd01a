"""LinUCB (Li et al. 2010, arXiv:1003.0146): of each action a ridge regression, and a bonus for what is not yet known.

Per action it learns two numbers of a prompt, the gain in speed and the strain, from the prompts on which it tried it:
the gain from all features, the strain from those of the prompt alone. Of what it never tried it expects that it is as
"none". While it learns, it takes the action that would be best if both lay at the better end of what is still possible,
so that it tries what could be good and not what is known to be bad. Afterwards it takes them as they are.

Axes: N prompts, A actions, F features, K of them and their products, 2 for gain and strain,
each with a view of the state of its own.
"""

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor

from tasks.train_controller.learn.guard import strain_of
from tasks.train_controller.learn.learner import Learner, Task
from tasks.train_controller.learn.policy import Predictor, Standard
from tasks.train_controller.learn.reward import Reward


@dataclass(frozen=True, kw_only=True, eq=False)
class Ridges(Predictor):
    """One linear regression of gain and strain for each action; the value is the reward of the two."""

    standard: Standard
    weights_2AK: Tensor
    degree: int
    reward: Reward
    floor: float

    def predict(self, state_NF: Tensor) -> tuple[Tensor, Tensor]:
        gain_NA, strain_NA = seen_2NK(self.standard, state_NF, self.degree) @ self.weights_2AK.mT
        return worth(self.reward, gain_NA, strain_NA, self.floor), strain_NA

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {**vars(self.standard), "weights_2AK": self.weights_2AK}

    @property
    def settings(self) -> dict[str, Any]:
        return {"degree": self.degree, "reward": asdict(self.reward), "floor": self.floor}

    @classmethod
    def of(cls, tensors: dict[str, Tensor], settings: dict[str, Any]) -> Self:
        of_standard = dict(tensors)
        weights_2AK = of_standard.pop("weights_2AK")
        reward = Reward(**settings["reward"])
        return cls(standard=Standard(**of_standard), weights_2AK=weights_2AK, **{**settings, "reward": reward})


def worth(reward: Reward, gain: Tensor, strain: Tensor, floor: float) -> Tensor:
    """The reward of a gain in speed and a strain."""
    return reward.of(1 + gain, floor * strain.sinh(), floor)


def expanded(seen_NF: Tensor, degree: int) -> Tensor:
    """1, the features, and for degree 2 the products of any two, (N, K)."""
    ones_N1 = torch.ones_like(seen_NF[:, :1])
    if degree == 1:
        return torch.cat([ones_N1, seen_NF], 1)
    left, right = _pairs(seen_NF.shape[1])
    return torch.cat([ones_N1, seen_NF, seen_NF[:, left] * seen_NF[:, right]], 1)


@cache
def _pairs(features: int) -> tuple[Tensor, Tensor]:
    """Of any two features the number of each, every pair once."""
    left, right = torch.triu_indices(features, features)
    return left, right


def seen_2NK(standard: Standard, state_NF: Tensor, degree: int) -> Tensor:
    """The states as the regressions of gain and of strain see them, (2, N, K)."""
    return expanded(standard.views(state_NF).flatten(0, 1), degree).unflatten(0, (2, -1))


@dataclass(frozen=True, kw_only=True)
class LinUCB(Learner):
    """`bonus`: how many standard errors an action may be better than it seems; `ridge`: the penalty of each weight.

    The mean of an action is hardly penalised, so that where little is known of a prompt it draws to that.
    `degree` 2 also sees the products of features, at `products` times the penalty.
    """

    name = "bandit"
    predictor = Ridges

    bonus: float = 0.3
    ridge: float = 3.0
    degree: int = 2
    products: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.degree not in (1, 2):
            raise ValueError(f"degree: {self.degree} given, valid is 1 or 2")
        for field in ("ridge", "products"):
            if not 0 < (given := getattr(self, field)) < float("inf"):
                raise ValueError(f"{field}: {given} given, valid is above 0")
        if not 0 <= self.bonus < float("inf"):
            raise ValueError(f"bonus: {self.bonus} given, valid is 0 or more")

    def practise(self, task: Task) -> Ridges:
        features = len(task.standard.center_F)
        penalty_K = torch.full((expanded(torch.zeros(1, features), self.degree).shape[1],), self.ridge).double()
        penalty_K[0] = 0.1
        penalty_K[1 + features :] *= self.products
        inverse_2AKK = torch.diag(1 / penalty_K).repeat(2, task.actions, 1, 1)  # of sum x x' + diag(penalty)
        moment_2AK = torch.zeros(2, task.actions, len(penalty_K), dtype=torch.float64)  # sum x gain, sum x strain
        tried: dict[int, set[int]] = {}

        def known() -> Ridges:
            return Ridges(
                standard=task.standard,
                weights_2AK=(inverse_2AKK @ moment_2AK[..., None])[..., 0],
                degree=self.degree,
                reward=self.reward,
                floor=task.floor,
            )

        state_F, info = task.world.reset(seed=task.seed)
        for trial in range(1, task.trials + 1):
            x_2K = seen_2NK(task.standard, torch.as_tensor(state_F)[None], self.degree)[:, 0]
            reach_2AK = (inverse_2AKK @ x_2K[:, None, :, None])[..., 0]
            gain_A, strain_A = (reach_2AK * moment_2AK).sum(-1)
            surprise_2A = (reach_2AK @ x_2K[..., None])[..., 0]  # x' inverse x
            gain_width_A, strain_width_A = self.bonus * surprise_2A.sqrt()
            hope_A = worth(self.reward, gain_A + gain_width_A, strain_A - strain_width_A, task.floor)
            done = tried.setdefault(info["prompt"], set())
            if len(done) == task.actions:  # nothing is left to see here, so all may be tried again
                done.clear()
            hope_A[list(done)] = -torch.inf
            action = int(hope_A.argmax())
            _, _, _, _, outcome = task.world.step(action)
            gain, rise = torch.tensor([outcome["ratio"] - 1, outcome["rise"]], dtype=torch.float64)
            seen_2 = torch.stack([gain, strain_of(rise, task.floor)])
            done.add(action)
            moment_2AK[:, action] += x_2K * seen_2[:, None]
            # Sherman and Morrison: the inverse with one more x x' in the sum
            reach_2K, surprise_211 = reach_2AK[:, action], surprise_2A[:, action, None, None]
            inverse_2AKK[:, action] -= reach_2K[:, :, None] * reach_2K[:, None] / (1 + surprise_211)
            task.step(trial, None, None, known)
            state_F, info = task.world.reset()
        return known()
