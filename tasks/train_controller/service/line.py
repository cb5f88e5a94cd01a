"""The line before the one model: who comes first is answered first, and who would wait too long is sent away at once.

One thread computes; it takes the questions in the order they came and tells each asker, who waits in an event loop,
what becomes of his as it happens. Whoever leaves makes way: a question that waits is struck out, an answer that is
being written ends at its next token.
"""

import asyncio
import logging
import math
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from time import monotonic
from typing import Generic, TypeVar

from tasks.train_controller.service.refusal import Refused, refused
from tasks.train_controller.service.request import Question

LOG = logging.getLogger(__name__)
Answer = TypeVar("Answer")
REMEMBERED = 8  # answers, about, over which the mean time of one is taken


class Left(Exception):  # noqa: N818
    """The client has gone; nobody reads the rest."""


class Turn(Generic[Answer]):
    """One place in the line. Only the thread of `loop` waits for its events."""

    def __init__(self, question: Question, loop: asyncio.AbstractEventLoop) -> None:
        self.question, self.loop, self.left = question, loop, False
        self.told: asyncio.Queue[str | Answer | Exception | None] = asyncio.Queue()

    async def events(self) -> AsyncIterator[str | Answer]:
        """The pieces of the answer and then the answer, as they come.

        Raises `Refused`: 400 for a question that cannot be answered, 500 where the model failed, 503 where the service
        stops; `Left`.
        """
        while (event := await self.told.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event


class Line(Generic[Answer]):
    """Questions in order, answered by `answers`; beside the one that is being answered at most `length` wait."""

    def __init__(self, answers: Callable[[Question], Iterator[str | Answer]], length: int) -> None:
        self.length = length
        self._answers = answers
        self._waiting: deque[Turn[Answer]] = deque()
        self._current: Turn[Answer] | None = None
        self._closed = False
        self._mean_s = 1.0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Questions that nobody answers yet."""
        return len(self._waiting)

    @property
    def closed(self) -> bool:
        return self._closed

    def enter(self, question: Question) -> Turn[Answer]:
        """A place at the end, for the running event loop. Raises `Refused`: 429 where it is full, 503 once closed."""
        with self._changed:
            if self._closed:
                raise _stopping()
            if len(self._waiting) + (self._current is not None) > self.length:
                after = max(1, math.ceil(self._mean_s))
                raise Refused(429, f"queue: {self.length} wait already, try again in {after} s", retry_after=after)
            turn: Turn[Answer] = Turn(question, asyncio.get_running_loop())
            self._waiting.append(turn)
            self._changed.notify()
            return turn

    def leave(self, turn: Turn[Answer]) -> None:
        """Give a place up, wherever it is; again is as good as once."""
        with self._changed:
            self._tell(turn, Left())
            turn.left = True
            if turn in self._waiting:
                self._waiting.remove(turn)

    def close(self) -> None:
        """Let nobody in, and send those away that wait. What is being answered is answered to its end."""
        with self._changed:
            self._closed = True
            while self._waiting:
                self._tell(self._waiting.popleft(), _stopping())
            self._changed.notify()

    def end(self) -> None:
        """Close, and return when nothing computes any more; an answer that is being written ends at its next token."""
        self.close()
        with self._changed:
            if self._current is not None:
                self._current.left = True
        self._thread.join()

    def _work(self) -> None:
        while (turn := self._next()) is not None:
            started = monotonic()
            self._answer(turn)
            self._mean_s += (monotonic() - started - self._mean_s) / REMEMBERED

    def _next(self) -> Turn[Answer] | None:
        """Who is to be answered now, once there is somebody; None once the line is closed."""
        with self._changed:
            self._current = None
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._current = self._waiting.popleft() if self._waiting else None
            return self._current

    def _answer(self, turn: Turn[Answer]) -> None:
        try:
            with closing(self._answers(turn.question)) as events:  # type: ignore[type-var]
                for event in events:
                    if not self._say(turn, event):
                        return
            self._say(turn, None)
        except ValueError as error:
            self._say(turn, refused(error))
        except Exception:  # of this answer alone: the next question is another
            LOG.exception("an answer failed")
            self._say(turn, Refused(500, "the answer failed, the log of the service says why"))

    def _say(self, turn: Turn[Answer], event: str | Answer | Exception | None) -> bool:
        """From the thread that computes; whether anybody listens."""
        with self._changed:
            self._tell(turn, event)
            return not turn.left

    def _tell(self, turn: Turn[Answer], event: str | Answer | Exception | None) -> None:
        if not turn.left:  # whose loop may be closed
            turn.loop.call_soon_threadsafe(turn.told.put_nowait, event)


def _stopping() -> Refused:
    return Refused(503, "the service is stopping", retry_after=1)
