"""What every policy of a run chose for the test prompts: those that were learned, and those that learn nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.train_controller.judge.regret import RANDOM, baselines, decisions
from tasks.train_controller.learn.policy import Policy
from tasks.train_controller.learn.reward import Reward
from tasks.train_controller.learn.table import Table
from tasks.train_controller.rows import DecisionRow


@dataclass(frozen=True, kw_only=True, eq=False)
class Contender:
    """A policy that was learned for a floor from a seed, under the name that rows have of it."""

    name: str
    floor: float
    seed: int
    policy: Policy


def every_decision(
    train: Table, test: Table, learned: Sequence[Contender], reward: Reward, target: float
) -> list[DecisionRow]:
    """Floor by floor, chance with as many seeds as there are; then what was learned. All is looked up in the table.

    `target`: the share of the training prompts on which the best fixed action may break the floor.
    """
    made: list[DecisionRow] = []
    for floor in dict.fromkeys(each.floor for each in learned):
        for seed in sorted({each.seed for each in learned}):
            for name, choice_P in baselines(train, test, floor, reward, seed, target).items():
                if name == RANDOM or not seed:  # the others draw nothing
                    made += decisions(name, floor, seed, choice_P, test, reward)
    for each in learned:
        made += decisions(each.name, each.floor, each.seed, each.policy.choices(test.state_PF), test, reward)
    return made
