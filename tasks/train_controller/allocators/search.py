"""What every allocator is: given a problem and something that tells losses, it finds levels.

The windows it may look at while it searches and those that judge what it found are different ones. Looking is counted
in tokens, so that allocators can be compared at equal cost; what has been looked at before costs nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tasks.train_controller.allocators.problem import Levels, Part, Problem

Rises = Sequence[NDArray[np.float64]]  # of each part (R,): nats per token of each of its rungs, the first to go first
RISES_LOOKS = 3  # that rises cost: a forward, and a backward that takes as long as two
Features = Mapping[Part, Mapping[str, float]]  # what is known of each part before any level is tried


class Spent(Exception):  # noqa: N818
    """An allocator asked for one more loss than it may look at; what it found until then counts."""


@dataclass(frozen=True, kw_only=True)
class Move:
    """One step of a search, for its learning curve."""

    step: int
    loss: float  # nats per token of what was tried, on the windows of the search
    best: float  # of the best so far
    tokens: int  # looked at so far
    reward: float | None = None  # of those that learn
    entropy: float | None = None  # nats, of their policy
    accepted: bool | None = None  # of those that try one move after the other
    allocator: str | None = None  # whose it is, of one of several


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What one allocator of several found, and how it does on windows that none of them looked at.

    `low` to `high`: where the difference of its loss to that of uniform levels lies, above 0 where it is worse.
    """

    name: str
    levels: Levels
    tokens: int  # looked at
    held_out: float  # nats per token
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """The levels that an allocator ends with, and how it got there.

    `candidates` and `why`: of an allocator that chooses among others, what it chose from, and one sentence.
    """

    levels: Levels
    moves: tuple[Move, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    why: str = ""


class Judge(ABC):
    """Tells the loss of a model whose parts have lost some rungs: one number of nats per token for each window."""

    @abstractmethod
    def search_losses(self, levels: Levels) -> tuple[float, ...]:
        """On the windows of the search. Raises Spent where its tokens are used up, but for levels seen before."""

    @abstractmethod
    def rung_rises(self, levels: Levels) -> Rises:
        """By how much each rung of each part raises the mean loss on the windows of the search, to first order.

        About `levels`, of rungs that are there and of those that have gone. Takes RISES_LOOKS looks. Raises Spent.
        """

    @abstractmethod
    def held_out_losses(self, levels: Levels) -> tuple[float, ...]:
        """On windows that no search looks at; they are not counted."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """That searching has cost so far: of each levels that this judge was asked for once, and of rises.

        They count even where an earlier search left their loss in a cache, so that it is found again.
        """

    @property
    @abstractmethod
    def looks_left(self) -> int:
        """How many levels that this judge was not yet asked for may still be looked at."""


@dataclass(frozen=True, kw_only=True)
class Searcher(ABC):
    """A way to find levels, with its hyper-parameters.

    `least_windows`: half of them are to look at, half are held out.
    """

    least_windows: ClassVar[int] = 2

    def check(self, problem: Problem) -> None:  # noqa: B027
        """Raises ValueError for hyper-parameters that mean nothing in this problem."""

    @abstractmethod
    def search(
        self,
        problem: Problem,
        judge: Judge,
        features: Features,
        *,
        seed: int = 0,
        on_move: Callable[[Move], None] | None = None,
    ) -> Found:
        """Levels that meet the budget of `problem`. The same inputs and seed give the same."""
