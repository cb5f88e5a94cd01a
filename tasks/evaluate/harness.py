"""lm-eval as one function of a loaded model: `answer` asks it a task's questions, in lm-eval's wording and metrics.

Questions come from the hub, or from local files: then a task file is generated beside lm-eval's own, which it includes
whole, and only says where the rows are (tasks.evaluate.task_files). Nothing of lm-eval is loaded before it is asked.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.evaluate.answers import Answers, samples_of, scores_of
from tasks.evaluate.quiet import Counting, quiet
from tasks.evaluate.suites import FOLDERS, SUITES, Asking
from tasks.evaluate.task_files import ASKED, SHOWN, described
from tasks.network import hub_answers, offline

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

Watch = Callable[[int], AbstractContextManager[Callable[[int], None]]]  # a progress of so many steps

LOGGERS = ("lm_eval", "transformers")
OFFLINE = "HF_DATASETS_OFFLINE"
DRAWS = 1000  # of a bootstrapped standard error; lm-eval's 100000 take minutes for LAMBADA's perplexity


def members(task: str) -> tuple[str, ...]:
    """The tasks that a name of lm-eval stands for: itself, those of a group or a tag. ValueError for no such name."""
    index = _manager(FOLDERS.get(task)).task_index
    if task not in index:
        near = get_close_matches(task, [*SUITES, *index], n=5)
        meant = f"; near it are {', '.join(near)}" if near else ""
        raise ValueError(
            f"suite: {task!r} is no task of lm-eval; valid is {', '.join(SUITES)}, or names of tasks{meant}"
        )
    return tuple(_members_in(task, index))


def check_reachable(task: str) -> None:
    """Raises ValueError where the hub, which has a task's questions, does not answer and its local cache lacks them."""
    from datasets import config

    if hub_answers(OFFLINE):
        return
    index = _manager(FOLDERS.get(task)).task_index
    for part in members(task):
        name = (index[part].cfg or {}).get("dataset_path", part)
        if not (Path(config.HF_DATASETS_CACHE) / name.replace("/", "___")).is_dir():
            raise ValueError(
                f"tasks_data: none given, and the hub, where {part} is {name}, does not answer; give a folder of files"
            )


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asking: Asking,
    questions: Path | None = None,
    watch: Watch | None = None,
) -> Answers:
    """Ask `model` the questions of a benchmark, in eval mode and on its device.

    `questions`: a folder with the rows of each of its tasks, by their role (`<task>.asked.jsonl`); without it they come
    from the hub or its local cache. `watch(total)` opens a progress, as tasks.progress does. Raises what `datasets`
    raises where rows cannot be had.
    """
    from lm_eval.evaluator import evaluate

    with ExitStack() as held:
        overlong = held.enter_context(_quietly())
        place = Path(held.enter_context(TemporaryDirectory()))
        if questions is not None or not hub_answers(OFFLINE):
            held.enter_context(offline())
        _sow(asking.seed)
        loaded = _load(asking, questions, place)
        lm = _watched(model, tokenizer, asking.batch, watch)
        started = perf_counter()
        found: Any = evaluate(
            lm=lm,
            task_dict=loaded,
            limit=asking.limit,
            bootstrap_iters=DRAWS,
            apply_chat_template=asking.chat,
            fewshot_as_multiturn=asking.chat,
        )
        seconds = perf_counter() - started
    return Answers(
        scores=tuple(scores_of(asking.benchmark.task, found)),
        samples=tuple(samples_of(found)),
        requests=sum(len(task.instances) for task in loaded["tasks"].values()),
        batch=lm.batch_size,
        shortened=overlong.count,
        seconds=seconds,
        questions=_asked(found),
    )


def _load(asking: Asking, questions: Path | None, place: Path) -> Any:
    """The tasks, each with the number of examples that it is to have, as lm-eval's `simple_evaluate` sets it."""
    name, few_shot = asking.benchmark.task, asking.benchmark.few_shot
    manager = _manager(FOLDERS.get(name))
    if questions is not None:
        for task in members(name):
            own = manager.task_index[task].yaml_path
            (place / f"{task}.yaml").write_text(json.dumps(_task_file(task, str(own), questions, place)))
        manager = _manager_of(_folder(FOLDERS.get(name)), place)
    loaded = manager.load([name])
    for task in loaded["tasks"].values():
        said = task.get_config("num_fewshot")
        if said is None or (few_shot is not None and said != 0):
            task.set_config(key="num_fewshot", value=few_shot or 0)
        task.set_fewshot_seed(seed=asking.seed)
    return loaded


def _task_file(task: str, own: str, questions: Path, place: Path) -> dict[str, Any]:
    """A task file, in JSON, which is YAML: lm-eval's own, with rows from local files."""
    files = {role: questions / f"{task}.{role}.jsonl" for role in (ASKED, SHOWN)}
    there = {role: str(file) for role, file in files.items() if file.is_file()}
    splits = {"training_split": None, "validation_split": None, "test_split": ASKED}
    return {
        "include": own,
        "task": task,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": there, "cache_dir": str(place / "cache")},
        **splits,
        "fewshot_split": SHOWN if SHOWN in there else None,
        **described(task).changes,
    }


@cache
def _manager(folder: str | None) -> "TaskManager":
    """Of the task files in one folder of lm-eval's; of all of them where none is named."""
    return _manager_of(_folder(folder))


def _manager_of(*folders: Path) -> "TaskManager":
    """Where a task is in two folders, the later one has it."""
    from lm_eval.tasks import TaskManager

    with _quietly():
        return TaskManager(include_defaults=False, include_path=list(folders))


def _folder(name: str | None) -> Path:
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent / (name or "")


def _members_in(name: str, index: Mapping[str, Any]) -> Iterator[str]:
    entry = index[name]
    match entry.kind.name:
        case "TAG":
            yield from sorted(entry.tags)
        case "GROUP":
            for each in entry.cfg["task"]:
                part = each if isinstance(each, str) else each.get("task") or each["group"]
                yield from _members_in(part, index)
        case _:
            yield name


def _watched(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: int, watch: Watch | None) -> "HFLM":
    """The model as lm-eval's, which tells `watch` how many requests it has answered."""
    from lm_eval.models.huggingface import HFLM

    class Watched(HFLM):
        def _answer(self, kind: str, requests: Any) -> Any:
            with ExitStack() as held:
                if watch is not None:
                    self.set_cache_hook(_Reached(held.enter_context(watch(len(requests)))))
                return getattr(super(), kind)(requests)

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return self._answer("loglikelihood", requests)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return self._answer("loglikelihood_rolling", requests)

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return self._answer("generate_until", requests)

    return Watched(pretrained=model, backend="causal", tokenizer=tokenizer, batch_size=batch)  # type: ignore[arg-type]


class _Reached:
    """Where lm-eval would keep each answer in a cache: counts them."""

    def __init__(self, reach: Callable[[int], None]) -> None:
        self.reach, self.done = reach, 0

    def add_partial(self, *answer: Any) -> None:
        self.done += 1
        self.reach(self.done)


@contextmanager
def _quietly() -> Iterator[Counting]:
    """lm-eval and `datasets` without what they print, log and draw. Yields a count of the texts that were too long."""
    import datasets
    import tqdm
    from lm_eval.api import model, task
    from lm_eval.models import huggingface

    drew = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with quiet(LOGGERS, "exceeds model's maximum length", [model, task, huggingface, tqdm]) as overlong:
            yield overlong
    finally:
        if drew:
            datasets.enable_progress_bars()


def _sow(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _asked(found: Mapping[str, Any]) -> str:
    """SHA-256, in hex, over every document, prompt and target, as they were asked."""
    digest = hashlib.sha256()
    for task in sorted(found["samples"]):
        for sample in found["samples"][task]:
            digest.update("".join(sample[name] for name in ("doc_hash", "prompt_hash", "target_hash")).encode())
    return digest.hexdigest()
