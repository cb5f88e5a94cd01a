"""Double DQN (van Hasselt et al. 2016, arXiv:1509.06461), with a second head that learns the strain of each action.

An answered prompt ends its episode, so there the target of a value is the reward alone, and the double target, the
target network and `gamma` are switched off by the formula itself; they matter in a world of several steps.

Axes: N of a batch, A actions, F features, H hidden units, 2 for value and strain.
"""

import copy
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss

from tasks.train_controller.learn.guard import strain_of
from tasks.train_controller.learn.learner import Learner, Task
from tasks.train_controller.learn.policy import Predictor, Standard


class Network(nn.Module, Predictor):
    """Two hidden layers of `hidden` units; from a state the value and the strain of each action.

    Both heads stand on the same units. Those of the strain are shown the prompt alone (`Standard.views`).
    """

    def __init__(self, standard: Standard, actions: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.standard, self.actions, self.hidden = standard, actions, hidden
        features = len(standard.center_F)
        self.first = nn.Linear(features, hidden, dtype=torch.float64)
        self.second = nn.Linear(hidden, hidden, dtype=torch.float64)
        self.value = nn.Linear(hidden, actions, dtype=torch.float64)
        self.strain = nn.Linear(hidden, actions, dtype=torch.float64)
        nn.init.normal_(self.first.weight, std=features**-0.5, generator=generator)
        nn.init.normal_(self.second.weight, std=hidden**-0.5, generator=generator)
        for zeroed in (self.first.bias, self.second.bias, *self.value.parameters(), *self.strain.parameters()):
            nn.init.zeros_(zeroed)

    def forward(self, state_NF: Tensor) -> tuple[Tensor, Tensor]:
        h_2NH = torch.relu(self.first(self.standard.views(state_NF)))
        whole_NH, prompt_NH = torch.relu(self.second(h_2NH))
        return self.value(whole_NH), self.strain(prompt_NH)

    @torch.no_grad()
    def predict(self, state_NF: Tensor) -> tuple[Tensor, Tensor]:
        return self(state_NF)

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {**vars(self.standard), **self.state_dict()}

    @property
    def settings(self) -> dict[str, Any]:
        return {"actions": self.actions, "hidden": self.hidden}

    @classmethod
    def of(cls, tensors: dict[str, Tensor], settings: dict[str, Any]) -> Self:
        weights = dict(tensors)
        standard = Standard(**{field.name: weights.pop(field.name) for field in fields(Standard)})
        network = cls(standard, generator=torch.Generator(), **settings)
        network.load_state_dict(weights)
        return network


class Replay:
    """The last `size` transitions, from which batches are drawn."""

    def __init__(self, size: int, features: int) -> None:
        self.state_RF = torch.zeros(size, features, dtype=torch.float64)
        self.after_RF = torch.zeros_like(self.state_RF)
        self.action_R = torch.zeros(size, dtype=torch.long)
        self.reward_R, self.strain_R, self.going_R = torch.zeros(3, size, dtype=torch.float64)
        self.count = 0

    def add(self, state_F: Tensor, action: int, reward: float, strain: float, after_F: Tensor, ended: bool) -> None:
        row = self.count % len(self.action_R)
        self.state_RF[row], self.after_RF[row], self.action_R[row] = state_F, after_F, action
        self.reward_R[row], self.strain_R[row], self.going_R[row] = reward, strain, not ended
        self.count += 1

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """The rows of a batch."""
        return torch.randint(min(self.count, len(self.action_R)), (batch,), generator=generator)


def double_target(reward_N: Tensor, going_N: Tensor, online_NA: Tensor, target_NA: Tensor, gamma: float) -> Tensor:
    """reward + gamma · the target network's value of the action that the online one would take then.

    `going_N`: 0 where the episode has ended, so that nothing follows; the values are those of the next state.
    """
    next_N = target_NA.gather(1, online_NA.argmax(1, keepdim=True))[:, 0]
    return reward_N + gamma * going_N * next_N


@dataclass(frozen=True, kw_only=True)
class DoubleDQN(Learner):
    """`rate`, `decay`: of AdamW; a batch of `batch` transitions is learned after every `every` trials.

    The share of actions that are drawn falls linearly from `epsilon` to `least_epsilon` over the share `exploring` of
    the trials. The target network is copied from the online one every `copied` updates; `gamma` discounts what follows.
    """

    name = "dqn"
    predictor = Network

    passes: int = 8
    hidden: int = 64
    rate: float = 4e-3
    decay: float = 1e-2
    batch: int = 128
    every: int = 4
    replay: int = 10_000
    copied: int = 100
    gamma: float = 0.9
    epsilon: float = 1.0
    least_epsilon: float = 0.05
    exploring: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("gamma", "epsilon", "least_epsilon", "exploring"):
            if not 0 <= (given := getattr(self, field)) <= 1:
                raise ValueError(f"{field}: {given} given, valid is 0 to 1")
        for field in ("hidden", "batch", "every", "replay", "copied"):
            if (given := getattr(self, field)) < 1:
                raise ValueError(f"{field}: {given} given, valid is 1 or more")
        if not 0 < self.rate < float("inf"):
            raise ValueError(f"rate: {self.rate} given, valid is above 0")
        if not 0 <= self.decay < float("inf"):
            raise ValueError(f"decay: {self.decay} given, valid is 0 or more")

    def practise(self, task: Task) -> Network:
        generator = torch.Generator().manual_seed(task.seed)
        online = Network(task.standard, task.actions, self.hidden, generator)
        target = copy.deepcopy(online)
        optimiser = torch.optim.AdamW(online.parameters(), lr=self.rate, weight_decay=self.decay, fused=True)
        replay = Replay(self.replay, len(task.standard.center_F))
        loss, updates = None, 0

        seen, _ = task.world.reset(seed=task.seed)
        for trial in range(1, task.trials + 1):
            epsilon = self.epsilon_at(trial, task.trials)
            state_F = torch.as_tensor(seen).double()
            if torch.rand((), generator=generator) < epsilon:
                action = int(torch.randint(task.actions, (), generator=generator))
            else:
                action = int(online.predict(state_F[None])[0].argmax())
            seen, reward, terminated, truncated, info = task.world.step(action)
            strain = strain_of(torch.tensor(info["rise"], dtype=torch.float64), task.floor).item()
            replay.add(state_F, action, reward, strain, torch.as_tensor(seen).double(), terminated)
            if terminated or truncated:
                seen, _ = task.world.reset()

            if trial % self.every == 0:
                rows_N = replay.draw(self.batch, generator)
                loss_1 = self.loss(online, target, replay, rows_N)
                optimiser.zero_grad()
                loss_1.backward()
                optimiser.step()
                loss, updates = loss_1.item(), updates + 1
                if updates % self.copied == 0:
                    target.load_state_dict(online.state_dict())
            task.step(trial, epsilon, loss, lambda: online)
        return online

    def loss(self, online: Network, target: Network, replay: Replay, rows_N: Tensor) -> Tensor:
        """Huber's: of the value against the double target, and of the strain, both of the action that was tried."""
        with torch.no_grad():
            after_NF = replay.after_RF[rows_N]
            goal_N = double_target(
                replay.reward_R[rows_N], replay.going_R[rows_N], online(after_NF)[0], target(after_NF)[0], self.gamma
            )
        action_N1 = replay.action_R[rows_N, None]
        value_N, strain_N = (head_NA.gather(1, action_N1)[:, 0] for head_NA in online(replay.state_RF[rows_N]))
        return huber_loss(value_N, goal_N) + huber_loss(strain_N, replay.strain_R[rows_N])

    def epsilon_at(self, trial: int, trials: int) -> float:
        """The share of actions that are drawn in this trial, of so many."""
        gone = min(1.0, trial / max(1.0, self.exploring * trials))
        return self.epsilon + (self.least_epsilon - self.epsilon) * gone
