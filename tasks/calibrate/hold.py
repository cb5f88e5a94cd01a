"""Forwards that are held half-way: each runs until it says so, and goes on when it is asked to.

A forward is a call deep in somebody else's module, so it can only be held from inside, in a hook, and gets a thread of
its own for that. Never do two run at once: whoever resumes a forward waits until it holds again, or has ended. A thread
is used for one forward after the other, because a new one has to get all its memory from the system anew.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Semaphore, Thread, current_thread

import torch


class Held(Thread):
    """A thread that computes what it is given, without gradients, and whose turn ends where that calls `hold()`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._compute: Callable[[], object] | None = None
        self._error: BaseException | None = None
        self._is_held = False
        self._go, self._stopped = Semaphore(0), Semaphore(0)

    def begin(self, compute: Callable[[], object]) -> None:
        """What the next `resume` starts with. What is still held is abandoned where it stands."""
        self.abandon()
        self._compute = compute

    def resume(self) -> None:
        """Let it go on until it holds again or ends; raises what it raised. RuntimeError if there is nothing to do."""
        if self._compute is None:
            raise RuntimeError("a forward that has ended cannot be resumed")
        self._turn()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def abandon(self) -> None:
        """Nothing is left to do; what is held unwinds."""
        self._compute = None
        if self._is_held:
            self._turn()
            self._error = None  # of the unwinding: nobody waits for what was computed

    def run(self) -> None:
        while True:
            self._go.acquire()
            assert self._compute is not None
            try:
                with torch.no_grad():  # the mode belongs to the thread
                    self._compute()
            except _Abandoned:
                pass
            except BaseException as error:  # carried over to the thread that waits
                self._error = error
            self._compute = None
            self._stopped.release()

    def _turn(self) -> None:
        self._go.release()
        self._stopped.acquire()


@contextmanager
def forwards(computes: Iterable[Callable[[], object]]) -> Iterator[list[Held]]:
    """A thread for each computation, ready to be resumed; afterwards they wait for the next ones."""
    threads: list[Held] = []
    try:
        for compute in computes:
            threads.append(_idle.pop() if _idle else _started())
            threads[-1].begin(compute)
        yield threads
    finally:
        for thread in threads:
            thread.abandon()
        _idle.extend(threads)


def hold() -> None:
    """End the turn of the `Held` that this runs in; returns when it is resumed."""
    held = current_thread()
    assert isinstance(held, Held)
    held._is_held = True
    held._stopped.release()
    held._go.acquire()
    held._is_held = False
    if held._compute is None:
        raise _Abandoned


_idle: list[Held] = []


def _started() -> Held:
    held = Held()
    held.start()
    return held


class _Abandoned(BaseException):
    """Unwinds a forward that nobody will resume."""
