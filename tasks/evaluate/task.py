"""The door of the evaluation room: the stages `evaluate` and `time_speed`, of models as they were stored.

`forecast_speed` and `forecast_profiles` are of models that are yet to be cut. `evaluate_profiles`, `time_profiles` and
`time_switches` are of one that is switched between its profiles. `gather_questions` and `answer_questions` are of
benchmarks.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from tasks.calibrate.memory import free_bytes, give_back
from tasks.calibrate.walk import lent
from tasks.evaluate.benchmark_row import Benchmarked, Samples, rows_of_scores
from tasks.evaluate.evaluation import evaluate_model
from tasks.evaluate.forecast import forecast_phases
from tasks.evaluate.forecast_row import Forecast
from tasks.evaluate.harness import answer
from tasks.evaluate.products import heads_in, works_of
from tasks.evaluate.size import weight_bytes
from tasks.evaluate.speed import compare_speed, compare_subjects, tokens_to_time
from tasks.evaluate.suites import Asking
from tasks.evaluate.task_files import write_rows
from tasks.handles import Checkpoint, EvaluationRow, SpeedRow, Tokens
from tasks.model.anatomy import find_blocks
from tasks.model.load import fingerprint, load_model, load_tokenizer
from tasks.model.mapped import mapped_model
from tasks.progress import progress
from tasks.prune.activation.folder import load_sparse
from tasks.prune.activation.methods import METHODS
from tasks.prune.activation.sparse_input import SparseInput
from tasks.prune.structure.cut import Cut
from tasks.prune.structure.named_cuts import NamedCut, of_equal_scores
from tasks.prune.structure.planned import planned
from tasks.prune.structure.profile_folder import load_profiles
from tasks.prune.structure.profiles import NONE, Profiles
from tasks.prune.structure.results import BuiltProfiles, Scored
from tasks.prune.structure.switching import SwitchingTime, switching_times
from tasks.prune.structure.task import calibration_batches, read_scores
from tasks.prune.unpack import is_packed, load_packed, unpack_checkpoint, unpacked_bytes
from tasks.record import home
from tasks.record.samples import write_samples
from tasks.record.unfinished import workplace
from tasks.stage import open_folder, stage

SWITCHES = 200  # that are timed, to each profile


@stage()
def evaluate(checkpoint: Checkpoint, tokens: Tokens, subject: str, device: str) -> EvaluationRow:
    """Perplexity of the stored checkpoint on the whole text, with what it costs and how many zeros it really has."""
    folder = open_folder(checkpoint)
    with opened(folder, device, run_code=checkpoint.kind == "per_layer") as model:
        return _evaluated(model, tokens, subject, checkpoint.hash, weight_bytes(folder))


@stage()
def evaluate_profiles(model: Checkpoint, built: BuiltProfiles, tokens: Tokens, device: str) -> list[EvaluationRow]:
    """As `evaluate`, of every profile: one model in memory, switched in place. `size_bytes`: of it and all profiles."""
    profiles, size_bytes = _load_profiles(model, built, device), weight_bytes(open_folder(model)) + built.size_bytes
    rows = []
    for name in profiles.names[1:]:
        with profiles.using(name) as switched:
            rows.append(_evaluated(switched, tokens, name, built.hash, size_bytes))
    return rows


@stage()
def time_speed(dense: Checkpoint, pruned: Checkpoint, device: str, machine: str) -> list[SpeedRow]:
    """Prefill and decode speed of both, interleaved. `machine` is in the key: another machine measures anew.

    Raises ValueError, before it loads any of them, where they do not fit into memory.
    """
    folders = [(open_folder(each), each.kind == "per_layer") for each in (dense, pruned)]
    for folder, _ in folders:
        check_speed(folder, device)
    first, second = (_load(folder, device, run_code) for folder, run_code in folders)
    return compare_speed(first, second, **tokens_to_time(first))


@stage()
def forecast_speed(
    model: Checkpoint, calibration: Tokens, scored: Scored, cut: Cut, device: str, machine: str
) -> list[Forecast]:
    """How fast `model` will be once `cut` is made by these scores; it is not made. `machine` as in `time_speed`.

    Raises ValueError as `time_speed`: the products of the cut model take as much memory as that itself will.
    """
    folder = open_folder(model)
    check_speed(folder, device)
    dense = load_model(folder)
    target = planned(dense, read_scores(scored), cut, calibration_batches(calibration, device), device)
    with lent(dense, torch.device(device)):
        return forecast_phases(dense, {"pruned": works_of(target, heads_in(dense))}, **tokens_to_time(dense))


@stage()
def forecast_profiles(
    model: Checkpoint, cuts: tuple[NamedCut, ...], round_to: int, device: str, machine: str
) -> list[Forecast]:
    """As `forecast_speed`, of profiles that are yet to be chosen: how many units go is known, and tells their products.

    Raises ValueError as `time_speed`.
    """
    folder = open_folder(model)
    check_speed(folder, device)
    dense = load_model(folder)
    heads, works = heads_in(dense), {}
    profiles = Profiles(dense)
    for cut in cuts:
        profiles.add(of_equal_scores(cut, dense, round_to))
        with profiles.using(str(cut)):
            works[str(cut)] = works_of(dense, heads)
    with lent(dense, torch.device(device)):
        return forecast_phases(dense, works, **tokens_to_time(dense))


@stage()
def time_profiles(model: Checkpoint, built: BuiltProfiles, device: str, machine: str) -> list[SpeedRow]:
    """As `time_speed`, of every profile and the model itself, "dense": one model that is switched from turn to turn."""
    profiles = _load_profiles(model, built, device)

    def put(subject: str) -> PreTrainedModel:
        profiles.switch(NONE if subject == "dense" else subject)
        return profiles.model

    return compare_subjects(["dense", *profiles.names[1:]], put, **tokens_to_time(profiles.model))


@stage()
def time_switches(model: Checkpoint, built: BuiltProfiles, device: str, machine: str) -> dict[str, SwitchingTime]:
    """How long it takes to switch to each profile, and to "none". `machine` is in the key, as in `time_speed`."""
    return switching_times(_load_profiles(model, built, device), SWITCHES)


@stage(reads_input=True)
def gather_questions(tasks: dict[str, dict[str, str]], content: str) -> home.Stored:
    """The rows of local files as lm-eval's tasks read them: of each task its files by their role.

    `content` (tasks.evaluate.task_files.content_of) stands for the bytes of the files in the cache key.
    """
    with home.store("questions") as draft:
        for task, files in tasks.items():
            write_rows(task, files, draft.path)
    return draft.stored


@stage(retry_on=ConnectionError)
def answer_questions(
    checkpoint: Checkpoint, asking: Asking, questions: home.Stored | None, samples: bool, harness: str, device: str
) -> Benchmarked:
    """What the stored checkpoint scores in a benchmark; `samples`: every reply is stored too.

    `questions` are of `gather_questions`; None: lm-eval has them from the hub. `harness`, its version, is in the key.
    """
    place = None if questions is None else open_folder(questions)
    with _reloaded(checkpoint, device) as (model, folder):
        watch = partial(progress, asking.benchmark.task)
        answers = answer(model, load_tokenizer(folder), asking, place, watch)
    kept = None
    if samples:
        with home.store("samples") as draft:
            write_samples(answers.samples, draft.path)
        kept = Samples(hash=draft.stored.hash, folder=draft.stored.folder, size_bytes=draft.stored.size_bytes)
    return Benchmarked(rows=rows_of_scores(answers, asking, checkpoint.hash), questions=answers.questions, samples=kept)


def check_speed(folder: Path, device: str) -> None:
    """Raises ValueError where the model in `folder` and its pruned version cannot be in memory together."""
    if not fits(folder, device):
        raise ValueError(
            f"speed: {folder} and its pruned version take {_size_bytes(folder) / 1e9:.2f} GB each, and whoever times "
            f"them needs both in memory, of which {free_bytes() / 1e9:.2f} GB are free; give --no-speed"
        )


def fits(folder: Path, device: str) -> bool:
    """Whether the model in `folder` is loaded: on the CPU if it takes no more than half of the memory that is free.

    Free is what the machine and the control groups of this process leave it. Half, so that there is room for a second
    one, or for what runs on the first. A GPU must hold its model in any case.
    """
    return device != "cpu" or _size_bytes(folder) <= free_bytes() / 2


@contextmanager
def opened(folder: Path, device: str, *, run_code: bool = False) -> Iterator[PreTrainedModel]:
    """The model in `folder`: loaded if it `fits`, else mapped from its files (tasks.model.mapped), the same bits.

    A packed one is unpacked for that, tensor by tensor, into a folder beside the artifacts, which is removed in the
    end. The system's temporary folder might be in memory. One with a modeling file (`run_code`) is always loaded.
    """
    if run_code or fits(folder, device):
        yield _load(folder, device, run_code)
        return
    with ExitStack() as held:
        if is_packed(folder):
            place = held.enter_context(workplace(f"unpacked-{folder.name}"))
            unpacked = Path(held.enter_context(TemporaryDirectory(dir=place)))
            unpack_checkpoint(folder, unpacked)
            folder = unpacked
        model = held.enter_context(mapped_model(folder))
        for block in find_blocks(model)[1]:
            block.register_forward_hook(lambda *_: give_back())  # or the allocator keeps more with every block
        yield model


@contextmanager
def _reloaded(checkpoint: Checkpoint, device: str) -> Iterator[tuple[PreTrainedModel, Path]]:
    """The model of any kind of checkpoint, and the folder with its tokenizer. Sparse inputs are so in prompts too."""
    folder = open_folder(checkpoint)
    if checkpoint.dense is None:
        with opened(folder, device, run_code=checkpoint.kind == "per_layer") as model:
            yield model, folder
        return
    dense = home.locate(checkpoint.dense)
    model = load_model(dense, device)
    load_sparse(model, fingerprint(dense), folder, METHODS)
    for module in nn.Module.to(model, device).modules():  # what was stored is read on the CPU
        if isinstance(module, SparseInput):
            module.prefill = "sparse"
    yield model, dense


def _evaluated(model: PreTrainedModel, tokens: Tokens, subject: str, checkpoint: str, size_bytes: int) -> EvaluationRow:
    ids = load_file(open_folder(tokens) / "tokens.safetensors")["ids"]
    with progress(f"perplexity of the {subject} model", total=tokens.windows) as reach:
        return evaluate_model(model, ids, tokens, subject, checkpoint, size_bytes, lambda done, _: reach(done))


def _load_profiles(model: Checkpoint, built: BuiltProfiles, device: str) -> Profiles:
    return load_profiles(load_model(open_folder(model), device), model.hash, open_folder(built))


def _load(folder: Path, device: str, run_code: bool = False) -> PreTrainedModel:
    return load_packed(folder, device) if is_packed(folder) else load_model(folder, device, run_code=run_code)


def _size_bytes(folder: Path) -> int:
    """Of the weights in memory."""
    return unpacked_bytes(folder) if is_packed(folder) else weight_bytes(folder)
