"""One progress, two places: a bar with the time left on the terminal, and an artifact in Prefect's interface."""

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
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        steps = bar.add_task(what, total=total, completed=done)

        def reach(done: int) -> None:
            nonlocal last_update
            bar.update(steps, completed=done)
            if artifact is not None and (done == total or monotonic() - last_update > SECONDS_BETWEEN_UPDATES):
                update_progress_artifact(artifact_id=artifact, progress=100.0 * done / total)  # type: ignore[arg-type]
                last_update = monotonic()

        yield reach
