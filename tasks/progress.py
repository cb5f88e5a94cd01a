"""One progress, two places: the terminal, and an artifact in Prefect's interface.

A terminal has a bar with the time left. Where stderr is a file or a pipe, a bar would leave blank lines: there each
finished stage has a plain line instead, so that a long run is not silent.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_UPDATES = 2.0  # each update of the interface is a request to the server


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Yield `reach(done)`, to be called whenever `done` of `total` steps are done; so many were done before."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    watched = TaskRunContext.get() is not None
    artifact = create_progress_artifact(progress=0.0, description=what) if watched else None
    last_update = monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        steps = bar.add_task(what, total=total, completed=done)

        def reach(done: int) -> None:
            nonlocal last_update
            bar.update(steps, completed=done)
            if artifact is not None and (done == total or monotonic() - last_update > SECONDS_BETWEEN_UPDATES):
                update_progress_artifact(artifact_id=artifact, progress=100.0 * done / total)  # type: ignore[arg-type]
                last_update = monotonic()

        yield reach


def tell_finished(line: str) -> None:
    """The plain line of what has finished, where no bar shows it."""
    if not sys.stderr.isatty():
        sys.stderr.write(f"espalier: {line}\n")
        sys.stderr.flush()
