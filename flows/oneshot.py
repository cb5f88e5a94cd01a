"""One-shot pruning, end to end: a model and a text go in; a pruned, packed, measured, registered model comes out."""

from dataclasses import replace
from time import perf_counter
from typing import Any

from prefect import flow, runtime

from flows.choices import Oneshot
from flows.outcome import Outcome, dataset_row, describe, name_run, record_recovery, recover_model, tokenize_texts
from flows.prepare import prepare
from flows.searching import moves_of, search, tables_of
from flows.show import show_run
from tasks.evaluate.task import evaluate, time_speed
from tasks.handles import ArtifactRow, Checkpoint, Packed, RunRow
from tasks.prune.allocators import Uniform
from tasks.prune.task import allocate, pack, prune
from tasks.record import home
from tasks.record.provenance import machine
from tasks.record.task import publish, record, write_report
from tasks.stage import Stages, run_always
from tasks.train_controller.allocators.results import OfWeights
from tasks.train_controller.allocators.search import Searcher
from tasks.train_controller.allocators.task import rank_weights
from tasks.train_controller.allocators.weight_rungs import level_pattern


@flow(name="oneshot", flow_run_name=name_run)
def oneshot(parameters: Oneshot, sweep: str | None = None, sweep_points: int | None = None) -> Outcome:
    """Tokenize, allocate, prune, recover, pack, evaluate, time, record, publish, report; what computes is cached."""
    started, stages = perf_counter(), Stages()
    run = runtime.flow_run.name
    found = prepare(parameters)
    calibration, evaluation = tokenize_texts(stages, parameters, found)
    on_calibration: dict[str, Any] = {"model": found.model, "calibration": calibration, "device": found.device}
    pattern, allocation, divided = found.recipe.pattern, None, None
    if isinstance(found.allocator, Searcher):
        grain: dict[str, Any] = {"pruner": found.recipe.pruner, "pattern": level_pattern(pattern, 1)}
        ranked = stages(rank_weights, **on_calibration, **grain)
        divided = search(stages, parameters, found, calibration, OfWeights(ranked=ranked, pattern=pattern))
        allocation = divided.searched.allocation
    elif not isinstance(found.allocator, Uniform):
        allocation = stages(allocate, **on_calibration, allocator=found.allocator, pattern=pattern)
    pruned = stages(prune, **on_calibration, recipe=found.recipe, allocation=allocation)
    recovered = recover_model(stages, parameters, found, pruned.checkpoint)
    last = recovered.trained.checkpoint if recovered else pruned.checkpoint
    modules = found.recipe.modules
    packed = stages(pack, checkpoint=last, pattern=pattern, allocation=allocation, modules=modules)
    on_text: dict[str, Any] = {"tokens": evaluation, "device": found.device}
    dense = stages(evaluate, named="evaluate dense", checkpoint=found.model, subject="dense", **on_text)
    result = stages(evaluate, named="evaluate pruned", checkpoint=packed.checkpoint, subject="pruned", **on_text)
    speeds = []
    if parameters.speed:
        pair = {"dense": found.model, "pruned": packed.checkpoint}
        speeds = stages(time_speed, **pair, device=found.device, machine=machine())

    context = describe("oneshot", run, parameters, found, evaluation)
    calibrated = replace(context, dataset_hash="")  # magnitude: what it did depends on no text, so no row names one
    if found.recipe.walks or allocation is not None:
        calibrated = replace(context, dataset_hash=calibration.dataset_hash)
        run_always(record, calibrated, {"datasets": [dataset_row("calibration", calibration)]})
    run_always(record, calibrated, {"blocks": pruned.blocks, "linears": pruned.linears, **tables_of(divided)})
    if recovered is not None:
        record_recovery(context, recovered)
    run_always(record, context, {"datasets": [dataset_row("evaluation", evaluation)], "evaluations": [dense, result]})
    run_always(record, context, {"speeds": speeds, "artifacts": artifact_rows(last, packed), "stages": stages.rows})
    row = RunRow(
        command=parameters.command(),
        parameters=parameters.model_dump_json(),
        sweep=sweep,
        sweep_points=sweep_points,
        seconds=perf_counter() - started,
        checkpoint=last.hash,
        registered_version=None,
    )
    run_always(
        publish, context, row, parameters.model_dump(), packed.checkpoint, [dense, result], speeds, moves_of(divided)
    )
    report = run_always(write_report, run)
    run_always(show_run, run, report)
    return Outcome(
        run=run,
        checkpoint=str(home.locate(last.folder)),
        packed=str(home.locate(packed.checkpoint.folder)),
        report=report,
        dense=dense,
        result=result,
        speeds=speeds,
    )


def artifact_rows(pruned: Checkpoint, packed: Packed) -> list[ArtifactRow]:
    """One row for the dense-shaped checkpoint, one for the packed one."""
    return [
        ArtifactRow(kind=kind, hash=made.hash, folder=made.folder, size_bytes=size_bytes)
        for kind, made, size_bytes in (
            ("checkpoint", pruned, packed.dense_bytes),
            ("packed", packed.checkpoint, packed.size_bytes),
        )
    ]
