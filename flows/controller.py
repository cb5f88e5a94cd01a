"""The run-time controller, end to end: a model and prompts go in; out comes a policy that chooses for every prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter

from prefect import flow, runtime

from flows.controller_choices import Controller
from flows.controller_fit import prepare_controller
from flows.controller_stages import (
    Chosen,
    Table,
    answer_live,
    choose_policies,
    chosen,
    judge,
    measure_table,
    train_policies,
)
from flows.outcome import dataset_row, describe, name_run, tokenize_calibration
from flows.profiles import artifact_row, build, profile_rows
from flows.show import show_run
from tasks.evaluate.task import time_switches
from tasks.handles import ArtifactRow, DatasetRow, RunRow
from tasks.record import home
from tasks.record.provenance import machine
from tasks.record.registry.learned_policies import Learned
from tasks.record.task import log, record, write_report
from tasks.stage import Stages, run_always
from tasks.train_controller.judge.regret import check_floor
from tasks.train_controller.results import Prompts, Trained
from tasks.train_controller.task import read_judged, read_rows, read_table


@dataclass(frozen=True, kw_only=True)
class ControllerOutcome:
    """What a run leaves: where its profiles and report are, and for every floor the policy to use."""

    run: str
    profiles: str
    report: str
    chosen: Sequence[Chosen]


@flow(name="controller", flow_run_name=name_run)
def train_controller(parameters: Controller) -> ControllerOutcome:
    """Build profiles, measure a table, train, answer live, judge, record, log, report; what computes is cached."""
    started, stages = perf_counter(), Stages()
    run = runtime.flow_run.name
    found = prepare_controller(parameters)
    making = parameters.making()
    calibration = tokenize_calibration(stages, making, found)
    built = build(stages, making, found, calibration)
    table = measure_table(stages, parameters, found, built)
    for floor in parameters.floor:
        check_floor(read_table(table.measured, "train"), floor)
    trained = train_policies(stages, parameters, found, table)
    best = choose_policies(parameters, trained)
    answered = answer_live(stages, parameters, found, table, best) if parameters.live else None
    judged = judge(stages, parameters, table, trained, answered)
    switching = stages(time_switches, model=found.model, built=built, device=found.device, machine=machine())

    context = describe("controller", run, parameters, found, table.prompts)
    calibrated = replace(context, dataset_hash=calibration.dataset_hash)
    asked, episodes = read_rows(table.measured)
    decided, worth = read_judged(judged)
    looks = [look for each in trained for look in each.looks]
    run_always(record, calibrated, {"datasets": [dataset_row("calibration", calibration)]})
    run_always(record, context, {"datasets": [prompts_row(table.prompts)], "prompts": asked, "episodes": episodes})
    run_always(record, context, {"learning": looks, "decisions": decided, "controllers": worth})
    run_always(record, context, {"profiles": profile_rows(built.facts, switching), "stages": stages.rows})
    run_always(record, context, {"artifacts": artifact_rows(table, trained)})
    row = RunRow(
        command=parameters.command(),
        parameters=parameters.model_dump_json(),
        sweep=None,
        seconds=perf_counter() - started,
        checkpoint=table.measured.hash,
        registered_version=None,
    )
    folders = {f"floor_{floor:g}": home.locate(each.folder) for floor, each in best.items()}
    learned = Learned(rows=worth, looks=looks, folders=folders)
    run_always(log, context, row, parameters.model_dump(), (), (), learned)
    report = run_always(write_report, run)
    run_always(show_run, run, report)
    return ControllerOutcome(
        run=run, profiles=str(home.locate(built.folder)), report=report, chosen=chosen(best, decided, worth)
    )


def prompts_row(prompts: Prompts) -> DatasetRow:
    """The prompts as a text: each is a document, and a window no longer than the longest."""
    return DatasetRow(
        role="prompts",
        source=prompts.source,
        documents=prompts.prompts,
        text_bytes=prompts.text_bytes,
        tokens=prompts.tokens,
        windows=prompts.prompts,
        window=prompts.longest,
    )


def artifact_rows(table: Table, trained: Sequence[Trained]) -> list[ArtifactRow]:
    """The profiles, the table, and every policy; two that learned the same are one."""
    measured = table.measured
    rows = {
        each.hash: ArtifactRow(kind="policy", hash=each.hash, folder=each.folder, size_bytes=each.size_bytes)
        for each in trained
    }
    of_table = ArtifactRow(kind="episodes", hash=measured.hash, folder=measured.folder, size_bytes=measured.size_bytes)
    return [artifact_row(table.built), of_table, *rows.values()]
