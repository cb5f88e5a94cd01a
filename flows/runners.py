"""Where the points of a sweep run: one after the other in this process, or at once in processes of Dask.

Each point is a task of the sweep that runs its own flow, so what it leaves is the same wherever it runs: rows under the
name of its own run, written last. What a run leaves that dies half-way is in no table.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed
from prefect.settings import PREFECT_API_URL
from prefect.states import State
from prefect.task_runners import TaskRunner
from pydantic import Field, model_validator

from flows.choices import Sweep
from flows.texts import Told

WORKERS = 2  # where nobody says how many


class Running(Told):
    """`here`: one point after the other. `dask`: `workers` at once, in processes of this machine made for it."""

    runner: Literal["here", "dask"] = "here"
    workers: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _every_option_is_used(self) -> Self:
        if self.runner == "here" and self.workers is not None:
            raise ValueError("workers: one point runs after the other here; give runner dask, or leave it out")
        return self

    def check(self) -> None:
        """Raises ValueError where what it needs is not installed."""
        if self.runner == "dask" and importlib.util.find_spec("prefect_dask") is None:
            raise ValueError("runner: dask is not installed; pip install 'espalier[dask]'")

    def task_runner(self) -> TaskRunner:
        """Of the runner dask."""
        from prefect_dask import DaskTaskRunner

        made = {"n_workers": self.workers or WORKERS, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
        return DaskTaskRunner(cluster_kwargs=made)


def run_at_once(
    run: Callable[..., Any], points: Sequence[Any], of: dict[str, Any], told: Callable[[int, Any, Any], None]
) -> list[Any]:
    """What `run(told, of)` returns for each, in order, where `told` is the JSON of a sweep of that point alone.

    Inside a flow whose task runner is that of `Running`. `told` gets how many are done, the point and its outcome, as
    each ends. Raises the first failure, once all have ended.
    """
    of_point: Task = task(run, name="point", persist_result=False, cache_policy=NO_CACHE)  # type: ignore[call-overload]
    alone = [Sweep(name="point", points=(point,)).model_dump_json() for point in points]
    place = {of_point.submit(each, of): number for number, each in enumerate(alone)}
    states: dict[int, State] = {}
    for future in as_completed([*place]):
        states[place[future]] = _state_of(future)
        if states[place[future]].is_completed():
            told(len(states), points[place[future]], states[place[future]].result())
    return [states[number].result() for number in range(len(points))]


@contextmanager
def with_server_in_reach() -> Iterator[None]:
    """Processes that are made within know the server of this one: they read the environment, not its settings."""
    before = os.environ.get("PREFECT_API_URL")
    os.environ["PREFECT_API_URL"] = str(PREFECT_API_URL.value())
    try:
        yield
    finally:
        if before is None:
            del os.environ["PREFECT_API_URL"]
        else:
            os.environ["PREFECT_API_URL"] = before


def _state_of(future: PrefectFuture) -> State:
    future.wait()
    return future.state
