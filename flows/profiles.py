"""Profiles, end to end: a model and the names of cuts go in; out come cuts between which it is switched in place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from prefect import flow, runtime

from flows.outcome import dataset_row, describe, name_run, tokenize_texts
from flows.prepare import PreparedProfiles, prepare_profiles
from flows.profile_choices import Profiles
from flows.show import show_run
from tasks.evaluate.forecast_row import ForecastRow, forecast_rows
from tasks.evaluate.profile_row import ProfileRow
from tasks.evaluate.task import evaluate, evaluate_profiles, forecast_profiles, time_profiles, time_switches
from tasks.handles import ArtifactRow, EvaluationRow, RunRow, SpeedRow, Tokens
from tasks.prune.structure.profile_facts import ProfileFacts
from tasks.prune.structure.results import BuiltProfiles
from tasks.prune.structure.switching import SwitchingTime
from tasks.prune.structure.task import build_profiles, score_units
from tasks.record import home
from tasks.record.provenance import machine
from tasks.record.task import log, record, write_report
from tasks.stage import Stages, run_always


@dataclass(frozen=True, kw_only=True)
class ProfilesOutcome:
    """What a run leaves: where its profiles and report are, and its measured rows, those of each profile in order."""

    run: str
    profiles: str
    report: str
    dense: EvaluationRow
    results: Sequence[EvaluationRow]
    rows: Sequence[ProfileRow]
    speeds: Sequence[SpeedRow]
    forecasts: Sequence[ForecastRow]


@flow(name="profiles", flow_run_name=name_run)
def make_profiles(parameters: Profiles) -> ProfilesOutcome:
    """Tokenize, forecast, score, build, evaluate, switch, time, record, log, report; what computes is cached."""
    started, stages = perf_counter(), Stages()
    run = runtime.flow_run.name
    found = prepare_profiles(parameters)
    calibration, evaluation = tokenize_texts(stages, parameters, found)
    cuts: dict[str, Any] = {"cuts": found.cuts, "round_to": parameters.round_to}
    place: dict[str, Any] = {"model": found.model, "device": found.device, "machine": machine()}
    forecasts = stages(forecast_profiles, **place, **cuts) if parameters.speed else []
    built = build(stages, parameters, found, calibration)
    on_text: dict[str, Any] = {"tokens": evaluation, "device": found.device}
    dense = stages(evaluate, named="evaluate dense", checkpoint=found.model, subject="dense", **on_text)
    results = stages(evaluate_profiles, model=found.model, built=built, **on_text)
    rows = profile_rows(built.facts, stages(time_switches, **place, built=built))
    speeds = stages(time_profiles, **place, built=built) if parameters.speed else []

    context = describe("profiles", run, parameters, found, evaluation)
    calibrated = replace(context, dataset_hash=calibration.dataset_hash)
    run_always(record, calibrated, {"datasets": [dataset_row("calibration", calibration)]})
    run_always(record, context, {"datasets": [dataset_row("evaluation", evaluation)], "profiles": rows})
    run_always(record, context, {"artifacts": [artifact_row(built)], "stages": stages.rows})
    held = forecast_rows(forecasts, speeds)
    names = {str(cut): parameters.method_of(cut) for cut in found.cuts}
    for result in (dense, *results):
        subject = result.subject
        own = replace(context, method=names[subject], pattern=subject) if subject in names else context
        timed = [row for row in speeds if row.subject == subject]
        foretold = [row for row in held if row.subject == subject]
        run_always(record, own, {"evaluations": [result], "speeds": timed, "forecasts": foretold})
    row = RunRow(
        command=parameters.command(),
        parameters=parameters.model_dump_json(),
        sweep=None,
        seconds=perf_counter() - started,
        checkpoint=built.hash,
        registered_version=None,
    )
    run_always(log, context, row, parameters.model_dump(), [dense, *results], speeds)
    report = run_always(write_report, run)
    run_always(show_run, run, report)
    return ProfilesOutcome(
        run=run,
        profiles=str(home.locate(built.folder)),
        report=report,
        dense=dense,
        results=results,
        rows=rows,
        speeds=speeds,
        forecasts=held,
    )


def build(stages: Stages, parameters: Profiles, found: PreparedProfiles, calibration: Tokens) -> BuiltProfiles:
    """Score the units as the cuts need it, and make the profiles."""
    on_calibration: dict[str, Any] = {"model": found.model, "calibration": calibration, "device": found.device}
    scored = tuple(
        stages(score_units, named=f"score by {name}", **on_calibration, importance=importance, name=name)
        for name, importance in found.importances.items()
    )
    cuts: dict[str, Any] = {"cuts": found.cuts, "round_to": parameters.round_to}
    return stages(build_profiles, **on_calibration, scored=scored, **cuts, repair=parameters.repair)


def profile_rows(facts: Sequence[ProfileFacts], switching: Mapping[str, SwitchingTime]) -> list[ProfileRow]:
    """What each profile leaves and holds, with how long it takes to switch to it."""
    return [
        ProfileRow(
            profile=each.name,
            blocks=each.blocks,
            head_groups=each.head_groups,
            channels=each.channels,
            parameters=each.parameters,
            own_bytes=each.own_bytes,
            shared_bytes=each.shared_bytes,
            switches=switching[each.name].switches,
            switch_median_ms=switching[each.name].median_ms,
            switch_worst_ms=switching[each.name].worst_ms,
        )
        for each in facts
    ]


def artifact_row(built: BuiltProfiles) -> ArtifactRow:
    return ArtifactRow(kind="profiles", hash=built.hash, folder=built.folder, size_bytes=built.size_bytes)
