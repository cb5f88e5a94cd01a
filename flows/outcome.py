"""What the flows share that take a dense model to another one: the texts they read, and what they leave."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from secrets import token_hex

from flows.choices import Oneshot, Slice
from flows.prepare import Found
from tasks.data.sources import identity
from tasks.data.task import tokenize
from tasks.handles import Context, DatasetRow, EvaluationRow, SpeedRow, Tokens
from tasks.record.provenance import machine, versions
from tasks.stage import Stages


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run leaves: where its checkpoint and report are, and its measured rows. `packed`: where it packs."""

    run: str
    checkpoint: str
    packed: str | None = None
    report: str
    dense: EvaluationRow
    result: EvaluationRow
    speeds: Sequence[SpeedRow]


def name_run() -> str:
    """A run's id is the name of its Prefect flow run: its time, and four random digits."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{token_hex(2)}"


def tokenize_texts(stages: Stages, parameters: Oneshot | Slice, found: Found) -> tuple[Tokens, Tokens]:
    """The calibration windows, and the whole text of the evaluation."""
    calibration = stages(
        tokenize,
        named="tokenize calibration",
        source=parameters.calibration,
        identity=identity(parameters.calibration),
        role="calibration",
        model=found.model,
        window=found.window,
        samples=parameters.samples,
        sampling=parameters.sampling,
        seed=parameters.seed,
    )
    return calibration, tokenize_whole(stages, parameters.evaluation, found, "evaluation", "evaluation")


def tokenize_whole(
    stages: Stages, source: str, found: Found, purpose: str = "recovery", role: str = "calibration"
) -> Tokens:
    """All of a text in one row; `role` says which part of a registered source."""
    return stages(
        tokenize,
        named=f"tokenize {purpose}",
        source=source,
        identity=identity(source, role),
        role=role,
        model=found.model,
        window=found.window,
    )


def describe(flow: str, run: str, parameters: Oneshot | Slice, found: Found, evaluation: Tokens) -> Context:
    return Context(
        run=run,
        flow=flow,
        model=found.name,
        model_hash=found.model.hash,
        dataset_hash=evaluation.dataset_hash,
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
    )
