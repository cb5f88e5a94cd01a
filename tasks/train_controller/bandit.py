"""LinUCB (Li et al. 2010, arXiv:1003.0146): of each action a ridge regression, and a bonus for what is not yet known.

Per action it learns two numbers of a prompt, the gain in speed and the strain, from the prompts on which it tried it;
of what it never tried it expects that it is as "none". While it learns, it takes the action that would be best if both
lay at the better end of what is still possible, so that it tries what could be good and not what is known to be bad.
Afterwards it takes them as they are.

Axes: N prompts, A actions, F features, K of them and their products, 2 for gain and strain.
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from tasks.train_controller.guard import strain_of
from tasks.train_controller.learner import Learner, Task
from tasks.train_controller.policy import Predictor, Standard
from tasks.train_controller.reward import Reward


@dataclass(frozen=True, kw_only=True, eq=False)
class Ridges(Predictor):
    """One linear regression of gain and strain for each action; the value is the reward of the two."""

    standard: Standard
    weights_AK2: Tensor
    degree: int
    reward: Reward
    floor: float

    def predict(self, state_NF: Tensor) -> tuple[Tensor, Tensor]:
        seen_NK = expanded(self.standard(state_NF), self.degree)
        gain_NA, strain_NA = torch.einsum("nk,akt->tna", seen_NK, self.weights_AK2)
        return worth(self.reward, gain_NA, strain_NA, self.floor), strain_NA

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {**vars(self.standard), "weights_AK2": self.weights_AK2}

    @property
    def settings(self) -> dict[str, Any]:
        return {"degree": self.degree, "reward": asdict(self.reward), "floor": self.floor}

    @classmethod
    def of(cls, tensors: dict[str, Tensor], settings: dict[str, Any]) -> Self:
        standard = Standard(center_F=tensors["center_F"], scale_F=tensors["scale_F"])
        reward = Reward(**settings["reward"])
        return cls(standard=standard, weights_AK2=tensors["weights_AK2"], **{**settings, "reward": reward})


def worth(reward: Reward, gain: Tensor, strain: Tensor, floor: float) -> Tensor:
    """The reward of a gain in speed and a strain."""
    return reward.of(1 + gain, floor * strain.sinh(), floor)


def expanded(seen_NF: Tensor, degree: int) -> Tensor:
    """1, the features, and for degree 2 the products of any two, (N, K)."""
    ones_N1 = torch.ones_like(seen_NF[:, :1])
    if degree == 1:
        return torch.cat([ones_N1, seen_NF], 1)
    left, right = torch.triu_indices(seen_NF.shape[1], seen_NF.shape[1])
    return torch.cat([ones_N1, seen_NF, seen_NF[:, left] * seen_NF[:, right]], 1)


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
        inverse_AKK = torch.diag(1 / penalty_K).repeat(task.actions, 1, 1)  # of sum x x' + diag(penalty), per action
        moment_AK2 = torch.zeros(task.actions, len(penalty_K), 2, dtype=torch.float64)  # sum x (gain, strain)
        tried: dict[int, set[int]] = {}

        def known() -> Ridges:
            weights_AK2 = inverse_AKK @ moment_AK2
            return Ridges(
                standard=task.standard,
                weights_AK2=weights_AK2,
                degree=self.degree,
                reward=self.reward,
                floor=task.floor,
            )

        state_F, info = task.world.reset(seed=task.seed)
        for trial in range(1, task.trials + 1):
            x_K = expanded(task.standard(torch.as_tensor(state_F)[None]), self.degree)[0]
            reach_AK = inverse_AKK @ x_K
            gain_A, strain_A = torch.einsum("ak,akt->ta", reach_AK, moment_AK2)
            width_A = self.bonus * (reach_AK @ x_K).sqrt()
            hope_A = worth(self.reward, gain_A + width_A, strain_A - width_A, task.floor)
            done = tried.setdefault(info["prompt"], set())
            if len(done) == task.actions:  # nothing is left to see here, so all may be tried again
                done.clear()
            hope_A[list(done)] = -torch.inf
            action = int(hope_A.argmax())
            _, _, _, _, outcome = task.world.step(action)
            gain, rise = torch.tensor([outcome["ratio"] - 1, outcome["rise"]], dtype=torch.float64)
            seen_2 = torch.stack([gain, strain_of(rise, task.floor)])
            done.add(action)
            moment_AK2[action] += x_K[:, None] * seen_2
            # Sherman and Morrison: the inverse with one more x x' in the sum
            inverse_AKK[action] -= torch.outer(reach_AK[action], reach_AK[action]) / (1 + x_K @ reach_AK[action])
            task.step(trial, None, None, known)
            state_F, info = task.world.reset()
        return known()
