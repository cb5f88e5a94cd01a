"""Structured pruning, end to end: a model and a text go in; one with fewer parameters comes out, loadable anywhere."""

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

from prefect import flow, runtime

from flows.choices import Slice
from flows.outcome import Outcome, dataset_row, describe, name_run, record_recovery, recover_model, tokenize_texts
from flows.prepare import prepare_slice
from flows.searching import moves_of, search, tables_of
from flows.show import show_run
from tasks.calibrate.importance.correlation import importance_rows, unit_rows
from tasks.calibrate.importance.importance import Unit
from tasks.evaluate.forecast_row import forecast_rows
from tasks.evaluate.task import evaluate, forecast_speed, time_speed
from tasks.handles import ArtifactRow, RunRow
from tasks.prune.structure.results import Scored, Sliced, UnitLoss
from tasks.prune.structure.task import measure_units, read_scores, score_units, slice_checkpoint
from tasks.record import home
from tasks.record.provenance import machine
from tasks.record.task import publish, record, write_report
from tasks.recover.task import Trained
from tasks.stage import Stages, run_always
from tasks.train_controller.allocators.results import OfUnits


@flow(name="slice", flow_run_name=name_run)
def slice_model(parameters: Slice, sweep: str | None = None, sweep_points: int | None = None) -> Outcome:
    """Tokenize, score, forecast, slice, recover, evaluate, time, record, publish, report; what computes is cached."""
    started, stages = perf_counter(), Stages()
    run = runtime.flow_run.name
    found = prepare_slice(parameters)
    calibration, evaluation = tokenize_texts(stages, parameters, found)
    on_calibration: dict[str, Any] = {"model": found.model, "calibration": calibration, "device": found.device}
    scored = stages(score_units, **on_calibration, importance=found.importance, name=parameters.importance.method)
    measured: tuple[UnitLoss, ...] = ()
    if parameters.measure_units:
        kinds, count = parameters.units, parameters.measure_units
        measured = stages(measure_units, **on_calibration, kinds=kinds, count=count, seed=parameters.seed)
    cut, divided = found.cut, None
    if parameters.search is not None:
        divided = search(stages, parameters, found, calibration, OfUnits(scored=scored, cut=cut))
        cut = replace(cut, left=divided.searched.left)
    chosen: dict[str, Any] = {"scored": scored, "cut": cut}
    forecasts = stages(forecast_speed, **on_calibration, **chosen, machine=machine()) if parameters.speed else []
    sliced = stages(slice_checkpoint, **on_calibration, **chosen)
    recovered = recover_model(stages, parameters, found, sliced.checkpoint)
    last = recovered.trained if recovered else sliced
    on_text: dict[str, Any] = {"tokens": evaluation, "device": found.device}
    dense = stages(evaluate, named="evaluate dense", checkpoint=found.model, subject="dense", **on_text)
    result = stages(evaluate, named="evaluate sliced", checkpoint=last.checkpoint, subject="pruned", **on_text)
    speeds = []
    if parameters.speed:
        pair: dict[str, Any] = {"dense": found.model, "pruned": last.checkpoint}
        speeds = stages(time_speed, **pair, device=found.device, machine=machine())
    foretold = forecast_rows(forecasts, speeds)

    context = describe("slice", run, parameters, found, evaluation)
    calibrated = replace(context, dataset_hash=calibration.dataset_hash)
    cut_rows = {"datasets": [dataset_row("calibration", calibration)], **sliced.tables}
    run_always(record, calibrated, cut_rows | unit_tables(scored, measured) | tables_of(divided))
    if recovered is not None:
        record_recovery(context, recovered)
    run_always(record, context, {"datasets": [dataset_row("evaluation", evaluation)], "evaluations": [dense, result]})
    run_always(record, context, {"speeds": speeds, "forecasts": foretold})
    run_always(record, context, {"artifacts": [artifact_row(last)], "stages": stages.rows})
    row = RunRow(
        command=parameters.command(),
        parameters=parameters.model_dump_json(),
        sweep=sweep,
        sweep_points=sweep_points,
        seconds=perf_counter() - started,
        checkpoint=last.checkpoint.hash,
        registered_version=None,
    )
    run_always(
        publish, context, row, parameters.model_dump(), last.checkpoint, [dense, result], speeds, moves_of(divided)
    )
    report = run_always(write_report, run)
    run_always(show_run, run, report)
    return Outcome(
        run=run,
        checkpoint=str(home.locate(last.checkpoint.folder)),
        report=report,
        dense=dense,
        result=result,
        speeds=speeds,
        cut=sliced.row,
        forecasts=foretold,
    )


def unit_tables(scored: Scored, measured: Sequence[UnitLoss]) -> dict[str, Sequence[Any]]:
    """The rows of all units, and those that hold the scores against the losses that were measured."""
    scores, losses = read_scores(scored), {Unit(each.block, each.kind, each.unit): each.loss for each in measured}
    return {
        "units": unit_rows(scored.importance, scores, losses),
        "importances": importance_rows(scored.importance, scores, losses),
    }


def artifact_row(made: Sliced | Trained) -> ArtifactRow:
    checkpoint = made.checkpoint
    return ArtifactRow(kind="checkpoint", hash=checkpoint.hash, folder=checkpoint.folder, size_bytes=made.size_bytes)
