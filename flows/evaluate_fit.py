"""What the flow `evaluate` checks before any work: the models, the benchmarks, the files with their questions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flows.device import device_named
from flows.evaluate_choices import Evaluate
from tasks.evaluate.harness import check_reachable, members
from tasks.evaluate.suites import Asking
from tasks.evaluate.task_files import find
from tasks.handles import Checkpoint
from tasks.model.load import check_folder, check_tokenizer, fingerprint, load_config, load_tokenizer, resolve
from tasks.network import hub_answers
from tasks.prune.unpack import is_packed
from tasks.record import home
from tasks.record.runs.origins import Origin, origin_of

INPUTS, MODELING = "activation.json", "modeling_per_layer.py"  # what tells a folder with sparse inputs, or per layer

Files = dict[str, dict[str, Path]]  # task -> role -> file


@dataclass(frozen=True, kw_only=True)
class PreparedEvaluate:
    """An `Evaluate` with everything looked up. `models`: by their subject, the dense one first where there is one.

    `files`: of each benchmark those of its tasks; None where the questions come from the hub.
    """

    name: str  # of the dense model, short
    models: dict[str, Checkpoint]
    origin: Origin | None
    askings: tuple[Asking, ...]
    files: dict[str, Files] | None
    device: str

    @property
    def model(self) -> Checkpoint:
        """The model that was named."""
        return list(self.models.values())[-1]


def prepare_evaluate(parameters: Evaluate) -> PreparedEvaluate:
    """Look up and check everything that a run names. Raises ValueError in one line; no weights are loaded."""
    askings = parameters.askings()
    tasks = {asking.benchmark.task: members(asking.benchmark.task) for asking in askings}
    files = None
    if parameters.tasks_data is not None:
        files = files_of(Path(parameters.tasks_data).expanduser(), tasks)
    else:
        for task in tasks:
            check_reachable(task)
    place = resolve(parameters.model)
    hash_, kind = _content(place)
    origin = origin_of(hash_)
    beside = _beside(parameters.dense, origin)
    if kind == "sparse_inputs" and beside is None:
        raise ValueError(f"dense: {place} holds sparse inputs, which a dense model reads; give that model")
    upon = str(beside) if kind == "sparse_inputs" else None
    named = Checkpoint(hash=hash_, folder=_written(place), kind=kind, dense=upon)
    models = {"given": named}
    if beside is not None:
        content, kind_of_dense = _content(beside)
        if content == hash_:
            raise ValueError(f"dense: {beside} and the model are the same; give what it was made of, or leave it out")
        models = {"dense": Checkpoint(hash=content, folder=_written(beside), kind=kind_of_dense), "pruned": named}
    for checkpoint in models.values():
        _check_words(checkpoint.hash, home.locate(checkpoint.dense or checkpoint.folder), parameters.chat)
    home.check_writable()
    return PreparedEvaluate(
        name=origin.model if origin else (beside or place).resolve().name,
        models=models,
        origin=origin,
        askings=askings,
        files=files,
        device=device_named(parameters.device),
    )


def files_of(folder: Path, tasks: Mapping[str, tuple[str, ...]]) -> dict[str, Files]:
    """The local files of each benchmark. Raises ValueError that says what the first lacks, and which lack nothing."""
    found: dict[str, Files] = {}
    lacking: dict[str, str] = {}
    for benchmark, parts in tasks.items():
        try:
            found[benchmark] = {part: find(folder, part) for part in parts}
        except ValueError as error:
            lacking[benchmark] = str(error)
    if lacking:
        first = next(iter(lacking.values()))
        more = f", and {len(lacking) - 1} more benchmarks lack theirs" if len(lacking) > 1 else ""
        rest = f"; those of --suite {','.join(found)} are there" if found else ""
        raise ValueError(f"{first}{more}{rest}")
    return found


def _beside(named: str | None, origin: Origin | None) -> Path | None:
    """The dense model: the one that was named, or else what the stored rows say, if it is still there and unchanged."""
    if named is not None:
        try:
            return resolve(named)
        except ValueError as error:
            raise ValueError(str(error).replace("model:", "dense:", 1)) from error
    if origin is None:
        return None
    said = json.loads(origin.parameters).get("model", "builtin")
    there = said == "builtin" or Path(said).is_dir() or hub_answers()
    place = resolve(said) if there else None
    return place if place is not None and fingerprint(place) == origin.model_hash else None


def _content(place: Path) -> tuple[str, str]:
    """The hash and the kind of what is in a folder: one of the store by its name, any other by its fingerprint."""
    relative = _in_store(place)
    if relative is not None:
        home.verify(home.Stored(kind=relative.parts[1], hash=place.name, folder=str(relative), size_bytes=0))
    if (place / INPUTS).is_file():
        if relative is None:
            raise ValueError(f"model: {place} holds sparse inputs outside of the artifacts folder; give the stored one")
        return place.name, "sparse_inputs"
    if is_packed(place):
        return (place.name if relative else fingerprint(place)), "packed"
    check_folder(place)
    if relative is None:
        return fingerprint(place), "transformers"
    return place.name, "per_layer" if (place / MODELING).is_file() else "transformers"


def _in_store(place: Path) -> Path | None:
    """`store/<kind>/<hash>` where the folder is an artifact of ours."""
    whole = place.resolve()
    store = home.root().resolve() / "store"
    return Path("store") / whole.relative_to(store) if whole.parent.parent == store else None


def _written(place: Path) -> str:
    """As a handle names the folder."""
    relative = _in_store(place)
    return str(place.absolute()) if relative is None else str(relative)


@cache
def _check_words(content: str, folder: Path, chat: bool) -> None:
    """The tokenizer is there and fits the model, and has a chat template where that is asked for. Once a `content`."""
    tokenizer = load_tokenizer(folder)
    if not (folder / MODELING).is_file():  # its configuration is code
        check_tokenizer(tokenizer, load_config(folder))
    if chat and not tokenizer.chat_template:
        raise ValueError(f"chat: the tokenizer of {folder} has no chat template; leave --chat out")
