"""What the flows share that take a dense model to another one: the texts they read, and what they leave."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from secrets import token_hex

from flows.activation_choices import Activation
from flows.choices import Oneshot, Slice
from flows.controller_choices import Controller
from flows.iterative_choices import Iterative
from flows.prepare import Found, Prepared, PreparedSlice
from flows.profile_choices import Profiles
from flows.recoveries import Recovering
from flows.texts import OfTexts
from tasks.data.labelled import ROLE
from tasks.data.sources import identity
from tasks.data.task import tokenize, tokenize_labelled
from tasks.evaluate.forecast_row import ForecastRow
from tasks.handles import Checkpoint, Context, DatasetRow, EvaluationRow, SpeedRow, Tokens
from tasks.prune.structure.cut_row import CutRow
from tasks.record.provenance import machine, versions
from tasks.record.task import record
from tasks.recover.task import Trained, recover_checkpoint
from tasks.stage import Stages, run_always
from tasks.train_controller.results import Prompts


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run leaves: where its checkpoint and report are, and its measured rows. `packed`: where it packs.

    `cut` and `forecasts`: of a run that cut a model once, the latter where speed was measured.
    """

    run: str
    checkpoint: str
    packed: str | None = None
    report: str
    dense: EvaluationRow
    result: EvaluationRow
    speeds: Sequence[SpeedRow]
    cut: CutRow | None = None
    forecasts: Sequence[ForecastRow] = ()


def name_run() -> str:
    """A run's id is the name of its Prefect flow run: its time, and six random digits, as many start in a second."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{token_hex(3)}"


def tokenize_texts(
    stages: Stages, parameters: OfTexts, found: Found, calibration_window: int | None = None
) -> tuple[Tokens, Tokens]:
    """The calibration windows, as long as those of the evaluation where nothing else is said, and all of its text."""
    calibration = tokenize_calibration(stages, parameters, found, calibration_window)
    evaluation = stages(
        tokenize,
        named="tokenize evaluation",
        source=parameters.evaluation,
        identity=identity(parameters.evaluation, "evaluation"),
        role="evaluation",
        model=found.model,
        window=found.window,
    )
    return calibration, evaluation


def tokenize_calibration(
    stages: Stages, parameters: OfTexts, found: Found, calibration_window: int | None = None
) -> Tokens:
    return stages(
        tokenize,
        named="tokenize calibration",
        source=parameters.calibration,
        identity=identity(parameters.calibration),
        role="calibration",
        model=found.model,
        window=calibration_window or found.window,
        samples=parameters.samples,
        sampling=parameters.sampling,
        seed=parameters.seed,
    )


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """A model that was trained once it was pruned or cut, and the texts it was trained on, in the order of its rows."""

    trained: Trained
    texts: tuple[Tokens, ...]


def recover_model(
    stages: Stages, parameters: Oneshot | Slice, found: Prepared | PreparedSlice, checkpoint: Checkpoint
) -> Recovered | None:
    """Train `checkpoint` as the parameters say; None where they do not."""
    if found.training is None:
        return None
    tokens = tokenize_recovery(stages, parameters, found)
    trained = stages(
        recover_checkpoint,
        checkpoint=checkpoint,
        texts=tokens,
        weights=tuple(text.weight for text in parameters.texts()),
        training=found.training,
        device=found.device,
        dense=None if found.training.distil is None else found.model,
    )
    return Recovered(trained=trained, texts=tokens)


def tokenize_recovery(stages: Stages, parameters: Recovering, found: Found) -> tuple[Tokens, ...]:
    """The texts to train on, whole."""
    texts = parameters.texts()
    return tuple(
        stages(
            tokenize_labelled,
            named=f"tokenize recovery {number}" if len(texts) > 1 else "tokenize recovery",
            source=text.source,
            identity=identity(text.source, ROLE),
            model=found.model,
            window=found.window,
        )
        for number, text in enumerate(texts, start=1)
    )


def record_recovery(context: Context, recovered: Recovered) -> None:
    """A row for each text, and one for what was trained of it."""
    for text, row in zip(recovered.texts, recovered.trained.sources, strict=True):
        of_text = replace(context, dataset_hash=text.dataset_hash)
        run_always(record, of_text, {"datasets": [dataset_row("recovery", text)], "recoveries": [row]})


def describe(
    flow: str,
    run: str,
    parameters: Oneshot | Slice | Iterative | Activation | Profiles | Controller,
    found: Found,
    text: Tokens | Prompts,
) -> Context:
    """What every row of this run carries; `text` is what is scored."""
    return Context(
        run=run,
        flow=flow,
        model=found.name,
        model_hash=found.model.hash,
        dataset_hash=text.dataset_hash,
        method=parameters.name,
        pattern=parameters.pattern,
        seed=parameters.seed,
        versions=versions(),
        machine=machine(),
        recorded_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def dataset_row(role: str, tokens: Tokens) -> DatasetRow:
    return DatasetRow(
        role=role,
        source=tokens.source,
        documents=tokens.documents,
        text_bytes=tokens.text_bytes,
        tokens=tokens.tokens,
        windows=tokens.windows,
        window=tokens.window,
        learned=tokens.learned,
    )
