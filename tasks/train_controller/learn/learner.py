"""What every learner does: it learns from single trials, and then learns how far its own predictions can be trusted.

For the second the training prompts are dealt into parts. Each part in turn is predicted by one that has learned from
the others, and its prompts, of which every outcome is looked up, calibrate the guard of the floor; the policy itself
then learns from all. So what the guard promises is exact for those that were left a part short, and taken over by the
policy, which has seen more than they have.

Axes: P prompts, A actions.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from tasks.train_controller.learn.guard import Seen, calibrated
from tasks.train_controller.learn.policy import Policy, Predictor, Standard
from tasks.train_controller.learn.reward import Reward
from tasks.train_controller.learn.table import Table
from tasks.train_controller.learn.trials import Trials, World, mean_reward
from tasks.train_controller.rows import LearningRow

LOOKS = 20  # at the learner while it learns


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a learner is put before: `trials` episodes in `world`, whose states `standard` makes comparable."""

    world: World
    standard: Standard
    actions: int
    trials: int
    floor: float
    seed: int
    on_step: Callable[[int, float | None, float | None, Callable[[], Predictor]], None] | None = None

    def step(self, number: int, epsilon: float | None, loss: float | None, now: Callable[[], Predictor]) -> None:
        """After each trial: its number from 1, the share of actions that are drawn, the loss, what is known by now."""
        if self.on_step is not None:
            self.on_step(number, epsilon, loss, now)


@dataclass(frozen=True, kw_only=True)
class Learner(ABC):
    """`passes`: how often each training prompt is tried, with one action each time; `reward`: what it is paid.

    `target`: the share of prompts whose rise may exceed the floor; `parts`: of the training prompts, for the guard.
    """

    name: ClassVar[str]
    predictor: ClassVar[type[Predictor]]

    passes: int = 4
    reward: Reward = field(default_factory=Reward)
    target: float = 0.005
    parts: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.target < 1:
            raise ValueError(f"target: {self.target} given, valid is above 0 and below 1")
        for name, least in {"passes": 1, "parts": 2}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} given, valid is {least} or more")

    @abstractmethod
    def practise(self, task: Task) -> Predictor:
        """Act, and learn from what comes of it: of an action that was not tried on a prompt nothing is seen there."""

    def learn(
        self,
        train: Table,
        floor: float,
        seed: int,
        held_out: Table | None = None,
        on_look: Callable[[LearningRow], None] | None = None,
    ) -> Policy:
        """A policy for `floor`; the same inputs give the same bytes. `held_out` is looked at, not learned from.

        Raises ValueError for a floor of 0 or less, and for fewer prompts than parts.
        """
        if not floor > 0:
            raise ValueError(f"floor: {floor} given, valid is above 0")
        if len(train) < self.parts:
            raise ValueError(f"prompts: {len(train)} given, valid is at least {self.parts}, one for each part")
        value_PA, strain_PA = torch.empty_like(train.rise_PA), torch.empty_like(train.rise_PA)
        order_P = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        for part_N in order_P.tensor_split(self.parts):
            others = sorted(set(order_P.tolist()) - set(part_N.tolist()))
            stranger = self.practise(self._task(train.of(others), floor, seed))
            value_PA[part_N], strain_PA[part_N] = stranger.predict(train.state_PF[part_N])
        reward_PA = self.reward.of(train.ratio_PA, train.rise_PA, floor)
        seen = Seen(value_NA=value_PA, strain_NA=strain_PA, reward_NA=reward_PA, rise_NA=train.rise_PA)
        guard = calibrated(seen, floor=floor, target=self.target)
        predictor = self.practise(self._task(train, floor, seed, held_out, on_look))
        return Policy(
            learner=self.name,
            actions=train.actions,
            features=train.features,
            floor=floor,
            predictor=predictor,
            guard=guard,
        )

    def _task(
        self,
        table: Table,
        floor: float,
        seed: int,
        held_out: Table | None = None,
        on_look: Callable[[LearningRow], None] | None = None,
    ) -> Task:
        trials = self.passes * len(table)

        def greedy(predictor: Predictor, on: Table) -> float:
            return mean_reward(on, floor, self.reward, predictor.predict(on.state_PF)[0].argmax(1))

        def look(step: int, epsilon: float | None, loss: float | None, now: Callable[[], Predictor]) -> None:
            if on_look is not None and (step % max(1, trials // LOOKS) == 0 or step == trials):
                row = LearningRow(
                    learner=self.name,
                    floor=floor,
                    learner_seed=seed,
                    step=step,
                    epsilon=epsilon,
                    loss=loss,
                    reward=greedy(now(), table),
                    held_out_reward=None if held_out is None else greedy(now(), held_out),
                )
                on_look(row)

        return Task(
            world=Trials(table, floor, self.reward),
            standard=Standard.of(table.state_PF, table.features),
            actions=len(table.actions),
            trials=trials,
            floor=floor,
            seed=seed,
            on_step=look,
        )
