"""What every allocator is: given a problem and something that tells losses, it finds levels.

The windows it may look at while it searches and those that judge what it found are different ones. Looking is counted
in tokens, so that allocators can be compared at equal cost; what has been looked at before costs nothing. Who can do
with less than a look asks for a fold of its windows.

Axes: R rungs of a part.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tasks.train_controller.allocators.problem import Levels, Part, Problem

FOLDS = 4  # that the windows of a look are dealt out to, if they are as many
RISES_LOOKS = 3  # that rises cost: a forward, and a backward that takes as long as two
LOOKS = {"losses": 1, "rises": RISES_LOOKS}
RungRises = Sequence[NDArray[np.float64]]  # of each part (R,), the first rung to go first
Features = Mapping[Part, Mapping[str, float]]  # what is known of each part before any level is tried


class Spent(Exception):  # noqa: N818
    """An allocator asked for one more loss than it may look at; what it found until then counts."""


@dataclass(frozen=True, kw_only=True)
class Rises:
    """What levels lose, and by how much each rung of each part raises that: nats per token, of the same windows."""

    loss: float
    parts: RungRises


@dataclass(frozen=True, kw_only=True)
class Move:
    """One step of a search, for its learning curve."""

    step: int
    levels: Levels  # that were tried
    loss: float  # theirs, nats per token on the windows of the search
    best: float  # of the best so far
    tokens: int  # looked at so far
    reward: float | None = None  # of those that learn
    entropy: float | None = None  # nats, of their policy
    accepted: bool | None = None  # of those that try one move after the other
    donor: Part | None = None  # theirs: who lost rungs
    receiver: Part | None = None  # and who got some back
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

    `candidates`, `chosen` and `why`: of an allocator that chooses among others, what it chose from, the name of what it
    chose, and one sentence.
    """

    levels: Levels
    moves: tuple[Move, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    chosen: str = ""
    why: str = ""


class Judge(ABC):
    """Tells the loss of a model whose parts have lost some rungs: one number of nats per token for each window.

    `windows` of `length` tokens are a look, and `limit` is how many tokens may be looked at. Window w is of the fold
    w % `folds`; to look at one fold counts as its windows alone. The same levels on the same windows count once, even
    where an earlier search left what is asked for in a cache.
    """

    def __init__(self, windows: int, length: int, limit: int) -> None:
        self.windows, self.length, self.limit = windows, length, limit
        self.folds = min(FOLDS, windows)
        self._had: set[tuple[str, Levels, int | None]] = set()
        self._spent = 0  # windows

    def search_losses(self, levels: Levels, fold: int | None = None) -> tuple[float, ...]:
        """On the windows of the search, or of one fold. Raises Spent where too few are left, but for what it told."""
        self._pay("losses", levels, fold)
        return self._losses(levels, fold)

    def rung_rises(self, levels: Levels, fold: int | None = None) -> Rises:
        """By how much each rung raises the mean loss of the windows of the search, or of one fold, to first order.

        About `levels`, of rungs that are there and of those that have gone. Counts RISES_LOOKS times. Raises Spent.
        """
        self._pay("rises", levels, fold)
        return self._rises(levels, fold)

    @abstractmethod
    def held_out_losses(self, levels: Levels) -> tuple[float, ...]:
        """On windows that no search looks at; they are not counted."""

    @abstractmethod
    def _losses(self, levels: Levels, fold: int | None) -> tuple[float, ...]: ...

    @abstractmethod
    def _rises(self, levels: Levels, fold: int | None) -> Rises: ...

    def size(self, fold: int | None) -> int:
        """Windows of a fold, or of a look."""
        return self.windows if fold is None else len(range(fold, self.windows, self.folds))

    @property
    def tokens(self) -> int:
        """That searching has cost so far."""
        return self._spent * self.length

    @property
    def windows_left(self) -> int:
        return self.limit // self.length - self._spent

    @property
    def looks_left(self) -> int:
        """How many levels that this judge was not yet asked for may still be looked at."""
        return self.windows_left // self.windows

    def price(self, kind: str, levels: Levels, fold: int | None) -> int:
        """Windows that `losses` or `rises` would count: none, where they were told before."""
        return 0 if (kind, levels, fold) in self._had else LOOKS[kind] * self.size(fold)

    def _pay(self, kind: str, levels: Levels, fold: int | None) -> None:
        price = self.price(kind, levels, fold)
        if price > max(self.windows_left, 0):
            raise Spent(f"{self.tokens} tokens looked at, the limit is {self.limit}")
        self._had.add((kind, levels, fold))
        self._spent += price


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
