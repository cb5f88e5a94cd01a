"""A library that prints, logs and draws bars, silenced for a while; what it warns of is counted."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from types import ModuleType
from typing import Any


class Counting(logging.Handler):
    """Counts the messages that contain `words`, and lets none through."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words, self.count = words, 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += self.words in record.getMessage()


@contextmanager
def quiet(loggers: Sequence[str], words: str, bars: Sequence[ModuleType]) -> Iterator[Counting]:
    """Keep back what `loggers` log and what is printed, and the bars that the modules `bars` draw with their `tqdm`.

    Yields a count of the messages that contain `words`. Everything is as it was afterwards. Meanwhile lm-eval draws its
    bootstraps in this process: a fork of one that has threads may hang.
    """
    logs, counting = [logging.getLogger(name) for name in loggers], Counting(words)
    wrote = [(log.handlers, log.propagate) for log in logs]
    drawn, forking = [module.tqdm for module in bars], os.environ.get("DISABLE_MULTIPROC")
    for log in logs:
        log.handlers, log.propagate = [counting], False
    for module in bars:
        module.tqdm = _without_bar(module.tqdm)  # type: ignore[attr-defined]
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        with redirect_stdout(StringIO()):
            yield counting
    finally:
        for log, (handlers, propagates) in zip(logs, wrote, strict=True):
            log.handlers, log.propagate = handlers, propagates
        for module, bar in zip(bars, drawn, strict=True):
            module.tqdm = bar  # type: ignore[attr-defined]
        if forking is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = forking


def _without_bar(bar: Any) -> type:
    class Silent(bar):
        def __init__(self, *given: Any, **how: Any) -> None:
            super().__init__(*given, **how | {"disable": True})

    return Silent
