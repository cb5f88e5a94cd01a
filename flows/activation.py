"""Activation sparsity, end to end: a model and a text go in; out comes what lets it read a part of its inputs."""

from dataclasses import replace
from time import perf_counter
from typing import Any

from prefect import flow, runtime

from flows.activation_choices import Activation
from flows.outcome import Outcome, dataset_row, describe, name_run, tokenize_texts
from flows.prepare import prepare_activation
from flows.show import show_run
from tasks.evaluate.task import evaluate
from tasks.handles import ArtifactRow, Checkpoint, RunRow
from tasks.prune.activation.results import SparseTiming
from tasks.prune.activation.task import evaluate_sparse, sparsify, time_sparse
from tasks.prune.allocators import Uniform
from tasks.prune.task import allocate
from tasks.record import home
from tasks.record.provenance import machine
from tasks.record.task import publish, record, write_report
from tasks.stage import Stages, run_always


@flow(name="activation", flow_run_name=name_run)
def sparsify_inputs(parameters: Activation, sweep: str | None = None, sweep_points: int | None = None) -> Outcome:
    """Tokenize, allocate, sparsify, evaluate, time, record, publish, report; what computes is cached."""
    started, stages = perf_counter(), Stages()
    run = runtime.flow_run.name
    found = prepare_activation(parameters)
    calibration, evaluation = tokenize_texts(stages, parameters, found)
    learning = parameters.learning()
    if learning is not None and calibration.dataset_hash == evaluation.dataset_hash:
        raise ValueError(
            f"calibration: {calibration.source} is learned on and is the evaluation too; give another text"
        )
    how: dict[str, Any] = {"how": found.how, "device": found.device}
    allocation = None
    if not isinstance(found.allocator, Uniform):
        grain: dict[str, Any] = {"allocator": found.allocator, "pattern": found.how.recipe.pattern}
        allocation = stages(allocate, model=found.model, calibration=calibration, **grain, device=found.device)
    division: dict[str, Any] = {"allocation": allocation, "greedy": parameters.greedy, "learning": learning}
    sparse = stages(sparsify, model=found.model, calibration=calibration, **how, **division)
    on_text: dict[str, Any] = {"tokens": evaluation, "device": found.device}
    dense = stages(evaluate, named="evaluate dense", checkpoint=found.model, subject="dense", **on_text)
    scored = stages(evaluate_sparse, model=found.model, sparse=sparse, tokens=evaluation, **how)
    timed = SparseTiming(speeds=(), products=())
    if parameters.speed:
        timed = stages(time_sparse, model=found.model, sparse=sparse, **how, machine=machine())
    result, speeds = scored.evaluation, timed.speeds

    context = describe("activation", run, parameters, found, evaluation)
    calibrated = replace(context, dataset_hash=calibration.dataset_hash)
    run_always(record, calibrated, {"datasets": [dataset_row("calibration", calibration)], "learned": sparse.learned})
    run_always(record, context, {"datasets": [dataset_row("evaluation", evaluation)], "sparse_inputs": scored.inputs})
    run_always(record, context, {"evaluations": [dense, result], "speeds": speeds, "products": timed.products})
    artifact = ArtifactRow(kind="activations", hash=sparse.hash, folder=sparse.folder, size_bytes=sparse.size_bytes)
    run_always(record, context, {"artifacts": [artifact], "stages": stages.rows})
    row = RunRow(
        command=parameters.command(),
        parameters=parameters.model_dump_json(),
        sweep=sweep,
        sweep_points=sweep_points,
        seconds=perf_counter() - started,
        checkpoint=sparse.hash,
        registered_version=None,
    )
    stored = Checkpoint(hash=sparse.hash, folder=sparse.folder, kind="sparse_inputs", dense=found.model.folder)
    run_always(publish, context, row, parameters.model_dump(), stored, [dense, result], speeds)
    report = run_always(write_report, run)
    run_always(show_run, run, report)
    return Outcome(
        run=run,
        checkpoint=str(home.locate(sparse.folder)),
        report=report,
        dense=dense,
        result=result,
        speeds=speeds,
    )
