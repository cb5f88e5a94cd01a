"""One-shot pruning, end to end: a model and a text go in; a pruned, packed, measured, registered model comes out."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from secrets import token_hex
from time import perf_counter

from prefect import flow, runtime

from flows.choices import Oneshot
from flows.prepare import Prepared, prepare
from flows.show import show_run
from tasks.data.sources import identity
from tasks.data.task import tokenize
from tasks.evaluate.task import evaluate, time_speed
from tasks.handles import (
    ArtifactRow,
    Context,
    DatasetRow,
    EvaluationRow,
    Packed,
    Pruned,
    RunRow,
    SpeedRow,
    Tokens,
)
from tasks.prune.allocators import Uniform
from tasks.prune.task import allocate, pack, prune
from tasks.record import home
from tasks.record.provenance import machine, versions
from tasks.record.task import publish, record, write_report
from tasks.stage import Stages, run_always


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run leaves: where its checkpoint and report are, and its measured rows."""

    run: str
    checkpoint: str
    packed: str
    report: str
    dense: EvaluationRow
    result: EvaluationRow
    speeds: tuple[SpeedRow, ...]


def name_run() -> str:
    """A run's id is the name of its Prefect flow run: its time, and four random digits."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{token_hex(2)}"


@flow(name="oneshot", flow_run_name=name_run)
def oneshot(parameters: Oneshot, sweep: str | None = None) -> Outcome:
    """Tokenize, allocate, prune, pack, evaluate, time, record, publish, report; all but the last three are cached."""
    started, stages = perf_counter(), Stages()
    run = runtime.flow_run.name
    found = prepare(parameters)
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
    evaluation = stages(
        tokenize,
        named="tokenize evaluation",
        source=parameters.evaluation,
        identity=identity(parameters.evaluation),
        role="evaluation",
        model=found.model,
        window=found.window,
    )
    on_calibration = {"model": found.model, "calibration": calibration, "device": found.device}
    allocation = None
    if not isinstance(found.allocator, Uniform):
        pattern = found.recipe.pattern
        allocation = stages(allocate, **on_calibration, allocator=found.allocator, pattern=pattern)
    pruned = stages(prune, **on_calibration, recipe=found.recipe, allocation=allocation)
    packed = stages(pack, checkpoint=pruned.checkpoint, pattern=found.recipe.pattern, allocation=allocation)
    on_text = {"tokens": evaluation, "device": found.device}
    dense = stages(evaluate, named="evaluate dense", checkpoint=found.model, subject="dense", **on_text)
    result = stages(evaluate, named="evaluate pruned", checkpoint=packed.checkpoint, subject="pruned", **on_text)
    speeds = []
    if parameters.speed:
        pair = {"dense": found.model, "pruned": packed.checkpoint}
        speeds = stages(time_speed, **pair, device=found.device, machine=machine())

    context = describe(run, parameters, found, evaluation)
    calibrated = replace(context, dataset_hash="")  # magnitude: what it did depends on no text, so no row names one
    if found.recipe.walks or allocation is not None:
        calibrated = replace(context, dataset_hash=calibration.dataset_hash)
        run_always(record, calibrated, {"datasets": [dataset_row("calibration", calibration)]})
    run_always(record, calibrated, {"blocks": pruned.blocks, "linears": pruned.linears})
    run_always(record, context, {"datasets": [dataset_row("evaluation", evaluation)], "evaluations": [dense, result]})
    run_always(record, context, {"speeds": speeds, "artifacts": artifact_rows(pruned, packed), "stages": stages.rows})
    row = RunRow(
        command=parameters.command(),
        parameters=parameters.model_dump_json(),
        sweep=sweep,
        seconds=perf_counter() - started,
        checkpoint=pruned.checkpoint.hash,
        registered_version=None,
    )
    run_always(publish, context, row, parameters.model_dump(), packed, [dense, result], speeds)
    report = run_always(write_report, run)
    run_always(show_run, run, report)
    return Outcome(
        run=run,
        checkpoint=str(home.locate(pruned.checkpoint.folder)),
        packed=str(home.locate(packed.checkpoint.folder)),
        report=report,
        dense=dense,
        result=result,
        speeds=tuple(speeds),
    )


def describe(run: str, parameters: Oneshot, found: Prepared, evaluation: Tokens) -> Context:
    return Context(
        run=run,
        flow="oneshot",
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


def artifact_rows(pruned: Pruned, packed: Packed) -> list[ArtifactRow]:
    """One row for the dense-shaped checkpoint, one for the packed one."""
    return [
        ArtifactRow(kind=kind, hash=made.hash, folder=made.folder, size_bytes=size_bytes)
        for kind, made, size_bytes in (
            ("checkpoint", pruned.checkpoint, packed.dense_bytes),
            ("packed", packed.checkpoint, packed.size_bytes),
        )
    ]
