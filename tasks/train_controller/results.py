"""What the stages of the run-time controller hand on: content under the home, and what is to be known of it."""

from dataclasses import dataclass

from tasks.train_controller.rows import LearningRow


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts of both splits in `folder` (tasks.train_controller.measure.encoded), as a model's tokenizer has them."""

    hash: str
    folder: str
    source: str
    dataset_hash: str  # of the texts alone: equal for every tokenizer
    prompts: int
    text_bytes: int
    tokens: int
    longest: int  # tokens


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The table from which policies learn, in `folder`: rows of `prompts` and of `episodes` (tasks.record.rows)."""

    hash: str
    folder: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A policy in `folder` (tasks.train_controller.learn.policy_folder), and how it was learned."""

    hash: str
    folder: str
    size_bytes: int
    name: str  # the learner, and what it did without
    floor: float
    seed: int
    reward: float  # mean over the training prompts
    looks: tuple[LearningRow, ...]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the policies chose for the test prompts, in `folder`: rows of `decisions` and of `controllers`."""

    hash: str
    folder: str


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What the policies did live, in `folder`: `answers` (tasks.train_controller.judge.live.LiveAnswer)."""

    hash: str
    folder: str
