"""Forwards that are held half-way: each runs until it says so, and goes on when it is asked to.

A forward is a call deep in somebody else's module, so it can only be held from inside, in a hook, and gets a thread of
its own for that. Never do two run at once: whoever resumes a forward waits until it holds again, or has ended.
"""

from collections.abc import Callable
from threading import Semaphore, Thread, current_thread
from types import TracebackType
from typing import Self

import torch


class Held(Thread):
    """`compute()` in a thread of its own, without gradients, whose turn ends where it calls `hold()`.

    To be used under `with`: what is still held at the end is abandoned where it stands.
    """

    def __init__(self, compute: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._compute = compute
        self._error: BaseException | None = None
        self._ended = self._abandoned = False
        self._go, self._stopped = Semaphore(0), Semaphore(0)

    def resume(self) -> None:
        """Let it go on until it holds again or ends; raises what it raised. RuntimeError if it has ended before."""
        if self._ended:
            raise RuntimeError("a forward that has ended cannot be resumed")
        self._go.release()
        self._stopped.acquire()
        if self._error is not None:
            raise self._error

    def run(self) -> None:
        self._go.acquire()
        try:
            if not self._abandoned:
                with torch.no_grad():  # the mode belongs to the thread
                    self._compute()
        except _Abandoned:
            pass
        except BaseException as error:  # carried over to the thread that waits
            self._error = error
        finally:
            self._ended = True
            self._stopped.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandoned = True
        self._go.release()
        self.join()


def hold() -> None:
    """End the turn of the `Held` that this runs in; returns when it is resumed."""
    held = current_thread()
    assert isinstance(held, Held)
    held._stopped.release()
    held._go.acquire()
    if held._abandoned:
        raise _Abandoned


class _Abandoned(BaseException):
    """Unwinds a forward that nobody will resume."""
