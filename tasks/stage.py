"""A stage: a Prefect task whose result is found again by its inputs and its code, and checked when it is found.

`@stage` makes the task; `Stages` runs stages inside a flow, times them, and repairs what a cache hit cannot promise:
on a hit the body does not run, so a checkpoint that somebody deleted or altered would come back as a mere name.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import State, Task, task
from prefect.client.schemas import TaskRun
from prefect.logging import get_run_logger
from prefect.serializers import JSONSerializer
from prefect.settings import get_current_settings
from rich.console import Console

from tasks.caching import cache_key, code_of
from tasks.handles import StageRow
from tasks.model.load import fingerprint
from tasks.peak import forget_peak, resident_bytes
from tasks.progress import tell_finished
from tasks.record import home
from tasks.result_file import drop_foreign_result
from tasks.secret import without_secrets

AS_JSON = JSONSerializer()


class StageFailed(RuntimeError):  # noqa: N818
    """A stage that raised; what was finished before it is kept, so the same command goes on from here. One line."""

    def __init__(self, stage: str, cause: BaseException) -> None:
        said = str(cause).strip().partition("\n")[0] or type(cause).__name__  # a database adds its whole statement
        super().__init__(f"stage {stage}: {without_secrets(said)}")
        self.stage, self.cause = stage, cause


def stage(
    *,
    reads_input: bool = False,
    retry_on: type[Exception] | None = None,
    timeout_seconds: int = 24 * 3600,
) -> Callable[[Callable], Task]:
    """Make a cached task of a function of plain values and handles that returns handles and row types.

    `reads_input`: it is the first to read what the user named, so its ValueErrors are about the words.
    `retry_on`: the failures that may pass, tried three times; any other would only repeat itself.
    """

    def may_pass(task: Task, run: TaskRun, state: State) -> bool:
        return retry_on is not None and isinstance(state.result(raise_on_failure=False), retry_on)

    def decorate(function: Callable) -> Task:
        key_of = cache_key(function)
        vars(function)["reads_input"] = reads_input

        def key(context: Any, parameters: dict[str, Any]) -> str:
            name = key_of(context, parameters)
            drop_foreign_result(Path(get_current_settings().results.local_storage_path) / name, AS_JSON.model_dump())
            return name

        return task(  # type: ignore[call-overload]
            function,
            name=function.__name__.replace("_", " "),
            retries=0 if retry_on is None else 2,
            retry_delay_seconds=2,
            retry_condition_fn=may_pass,
            timeout_seconds=timeout_seconds,
            cache_key_fn=key,
            persist_result=True,
            result_serializer=AS_JSON,
        )

    return decorate


@dataclass
class Stages:
    """Runs the stages of one flow run and keeps a row of each: `stages(tokenize, source=…) -> Tokens`."""

    rows: list[StageRow] = field(default_factory=list)

    def __call__(self, stage: Task, *, named: str | None = None, **inputs: Any) -> Any:
        """Run a stage and return its result; `named` tells two runs of one stage apart. Raises StageFailed."""
        on_gpu = str(inputs.get("device")).startswith("cuda")
        # a tag is what a concurrency limit counts; asking the server about it at each run can be slow (LOG.md)
        stage = stage.with_options(name=named or stage.name, tags={"gpu"} if on_gpu else None)
        knows_peak, started = forget_peak(), time.perf_counter()
        state = stage(**inputs, return_state=True)
        if state.is_completed() and state.name == "Cached":
            damage = _damage(state.result())
            if damage:
                _tell(f"{stage.name}: {damage}; computing it again")
                state = stage.with_options(refresh_cache=True)(**inputs, return_state=True)
        if not state.is_completed():
            cause = state.result(raise_on_failure=False)
            if vars(stage.fn)["reads_input"] and isinstance(cause, ValueError) and not isinstance(cause, home.Damaged):
                raise cause  # a mistake in the words, found where they were first read
            raise StageFailed(stage.name, cause)
        cached = state.name == "Cached"
        seconds, code = time.perf_counter() - started, code_of(stage.fn, inputs)
        peak = resident_bytes("VmHWM") if knows_peak and not cached else None
        self.rows.append(StageRow(stage=stage.name, seconds=seconds, cached=cached, code=code, peak_bytes=peak))
        if not cached:
            tell_finished(f"{stage.name}: {seconds:.1f} s")
        return state.result()


def run_always(task: Callable[..., Any], *inputs: Any) -> Any:
    """Run a task of the record room, whose failure too is a stage's: named, and nothing finished is lost."""
    state = task(*inputs, return_state=True)
    if not state.is_completed():
        raise StageFailed(task.name, state.result(raise_on_failure=False))  # type: ignore[attr-defined]
    return state.result()


def open_folder(handle: home.Handle) -> Path:
    """The folder of a handle, after a check that it still has the content which the handle names.

    Raises home.Damaged where it has not, and for a model outside of the store whose kind says that it brings code.
    """
    folder = home.locate(handle.folder)
    if not Path(handle.folder).is_absolute():
        home.verify(handle)
    elif getattr(handle, "kind", "") == "per_layer":
        raise home.Damaged(f"{folder} is not in the store, and code that it brings is run from the store alone")
    elif fingerprint(folder) != handle.hash:
        raise home.Altered(f"{folder} has changed since this run began; start the run again")
    return folder


def _tell(line: str) -> None:
    """Into the run's log, which the interface shows, and on the terminal."""
    get_run_logger().warning(line)
    Console(stderr=True).print(line, highlight=False, soft_wrap=True)


def _damage(result: Any) -> str | None:
    """What is wrong with the stored content that a cached result points to, if anything."""
    for handle in home.handles_in(result):
        try:
            home.verify(handle)
        except home.Damaged as damage:
            return str(damage)
    return None
