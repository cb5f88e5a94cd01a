"""The learners by name, and what is asked of them beside a policy: other weights of the reward, features left out."""

from dataclasses import replace

from tasks.train_controller.learn.bandit import LinUCB
from tasks.train_controller.learn.dqn import DoubleDQN
from tasks.train_controller.learn.learner import Learner
from tasks.train_controller.observation import HARDWARE_FEATURES, PROMPT_FEATURES

LEARNERS: dict[str, type[Learner]] = {each.name: each for each in (DoubleDQN, LinUCB)}
ABLATIONS = {"no hardware state": HARDWARE_FEATURES, "no prompt features": PROMPT_FEATURES}  # what is left out
QUALITIES = (0.0, 1.0, 3.0, 10.0)  # weights of the quality that a sweep compares
TOLERANCES = (0.0, 1.0)  # and shares of the floor that are free


def reweighted(learner: Learner) -> dict[str, Learner]:
    """The same learner under every reward of the sweep, by the name of its policies in the tables."""
    return {
        f"{learner.name}, quality {quality:g}, tolerance {tolerance:g}": replace(
            learner, reward=replace(learner.reward, quality=quality, tolerance=tolerance)
        )
        for quality in QUALITIES
        for tolerance in TOLERANCES
        if quality or tolerance == TOLERANCES[0]  # without a weight there is nothing to tolerate
    }
