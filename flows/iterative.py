"""Adapt-Accel, end to end: a model is cut in stages and trained between them, by one training that outlasts cuts."""

from dataclasses import replace
from time import perf_counter
from typing import Any

from prefect import flow, runtime

from flows.iterative_choices import Iterative
from flows.iterative_plan import prepare_iterative
from flows.iterative_stages import Done, Left, cut_and_train, slices_of_all, trained_in_all
from flows.outcome import (
    Outcome,
    Recovered,
    dataset_row,
    describe,
    name_run,
    record_recovery,
    tokenize_recovery,
    tokenize_texts,
)
from flows.show import show_cut_stages, show_run
from flows.slice import artifact_row
from tasks.evaluate.task import evaluate, time_speed
from tasks.handles import RunRow
from tasks.record import home
from tasks.record.provenance import machine
from tasks.record.task import publish, record, write_report
from tasks.stage import Stages, run_always


@flow(name="iterative", flow_run_name=name_run)
def iterative(parameters: Iterative) -> Outcome:
    """Tokenize; score, allocate, slice and recover in every stage; evaluate, time, record, publish, report."""
    started, stages = perf_counter(), Stages()
    run = runtime.flow_run.name
    found = prepare_iterative(parameters)
    calibration, evaluation = tokenize_texts(stages, parameters, found, found.calibration_window)
    texts = tokenize_recovery(stages, parameters, found)
    left = Left.whole(found)
    done: list[Done] = []
    for stage in found.stages:
        done.append(cut_and_train(stages, parameters, found, stage, left, calibration, texts))
        left = done[-1].left
        run_always(show_cut_stages, [each.row for each in done])
    trained = done[-1].trained
    on_text: dict[str, Any] = {"tokens": evaluation, "device": found.device}
    dense = stages(evaluate, named="evaluate dense", checkpoint=found.model, subject="dense", **on_text)
    result = stages(evaluate, named="evaluate cut", checkpoint=trained.checkpoint, subject="pruned", **on_text)
    speeds = []
    if parameters.speed:
        pair: dict[str, Any] = {"dense": found.model, "pruned": trained.checkpoint}
        speeds = stages(time_speed, **pair, device=found.device, machine=machine())

    context = describe("iterative", run, parameters, found, evaluation)
    calibrated = replace(context, dataset_hash=calibration.dataset_hash)
    cut_rows = {"cut_stages": [each.row for each in done], "slices": slices_of_all([each.sliced for each in done])}
    run_always(record, calibrated, {"datasets": [dataset_row("calibration", calibration)], **cut_rows})
    record_recovery(context, Recovered(trained=trained_in_all([each.trained for each in done]), texts=texts))
    run_always(record, context, {"datasets": [dataset_row("evaluation", evaluation)], "evaluations": [dense, result]})
    run_always(record, context, {"speeds": speeds, "artifacts": [artifact_row(trained)], "stages": stages.rows})
    row = RunRow(
        command=parameters.command(),
        parameters=parameters.model_dump_json(),
        sweep=None,
        seconds=perf_counter() - started,
        checkpoint=trained.checkpoint.hash,
        registered_version=None,
    )
    run_always(publish, context, row, parameters.model_dump(), trained.checkpoint, [dense, result], speeds)
    report = run_always(write_report, run)
    run_always(show_run, run, report)
    return Outcome(
        run=run,
        checkpoint=str(home.locate(trained.checkpoint.folder)),
        report=report,
        dense=dense,
        result=result,
        speeds=speeds,
    )
