"""Benchmarks, end to end: a model and the name of a suite go in; out come its scores beside those of the dense one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from time import perf_counter

from prefect import flow, runtime

from flows.evaluate_choices import Evaluate
from flows.evaluate_fit import Files, PreparedEvaluate, prepare_evaluate
from flows.outcome import name_run
from flows.show import show_run
from tasks.evaluate.benchmark_row import BenchmarkRow, Samples
from tasks.evaluate.task import answer_questions, gather_questions
from tasks.evaluate.task_files import content_of
from tasks.handles import ArtifactRow, Context, RunRow
from tasks.record import home
from tasks.record.provenance import machine, versions
from tasks.record.task import log, record, write_report
from tasks.stage import Stages, run_always


@dataclass(frozen=True, kw_only=True)
class EvaluateOutcome:
    """What a run leaves: its report, its rows, the folders of the replies that were kept."""

    run: str
    report: str
    checkpoint: str
    rows: Sequence[BenchmarkRow]
    samples: Sequence[str]


@flow(name="evaluate", flow_run_name=name_run)
def evaluate_benchmarks(parameters: Evaluate) -> EvaluateOutcome:
    """Gather the questions, ask every model, record, log, report; what computes is cached, each benchmark apart."""
    started, stages = perf_counter(), Stages()
    run = runtime.flow_run.name
    found = prepare_evaluate(parameters)
    context = describe_evaluate(run, parameters, found)
    rows: list[BenchmarkRow] = []
    kept: list[Samples] = []
    for asking in found.askings:
        task = asking.benchmark.task
        questions = None if found.files is None else gather(stages, task, found.files[task])
        for subject, checkpoint in found.models.items():
            answered = stages(
                answer_questions,
                named=f"{task} of the {subject} model",
                checkpoint=checkpoint,
                asking=asking,
                questions=questions,
                samples=parameters.keep_samples,
                harness=version("lm_eval"),
                device=found.device,
            )
            asked = replace(context, dataset_hash=answered.questions)
            run_always(record, asked, {"benchmarks": answered.of(subject)})
            rows += answered.of(subject)
            kept += [answered.samples] if answered.samples is not None else []
    run_always(record, context, {"artifacts": artifact_rows(kept), "stages": stages.rows})
    row = RunRow(
        command=parameters.command(),
        parameters=parameters.model_dump_json(),
        sweep=None,
        seconds=perf_counter() - started,
        checkpoint=found.model.hash,
        registered_version=None,
    )
    run_always(log, context, row, parameters.model_dump(), [], [], None, rows)
    report = run_always(write_report, run)
    run_always(show_run, run, report)
    return EvaluateOutcome(
        run=run,
        report=report,
        checkpoint=str(home.locate(found.model.folder)),
        rows=rows,
        samples=[str(home.locate(each.folder)) for each in kept],
    )


def gather(stages: Stages, task: str, files: Files) -> home.Stored:
    """The questions of a benchmark from local files, in the form that lm-eval's tasks read."""
    flat = {f"{part}.{role}": file for part, own in files.items() for role, file in own.items()}
    tasks = {part: {role: str(file.absolute()) for role, file in own.items()} for part, own in files.items()}
    return stages(gather_questions, named=f"gather {task}", tasks=tasks, content=content_of(flat))


def describe_evaluate(run: str, parameters: Evaluate, found: PreparedEvaluate) -> Context:
    """A model that a run of ours has made keeps the names of its method and pattern; any other has those of the asking.

    `dataset_hash`: of the names of the benchmarks; a row of one has the hash of its questions instead.
    """
    origin = found.origin
    return Context(
        run=run,
        flow="evaluate",
        model=found.name,
        model_hash=next(iter(found.models.values())).hash,
        dataset_hash=parameters.suite,
        method=origin.method if origin else "evaluate",
        pattern=origin.pattern if origin else parameters.suite,
        seed=parameters.seed,
        versions=versions(),
        machine=machine(),
        recorded_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def artifact_rows(kept: Sequence[Samples]) -> list[ArtifactRow]:
    distinct = {each.hash: each for each in kept}.values()
    return [
        ArtifactRow(kind="samples", hash=each.hash, folder=each.folder, size_bytes=each.size_bytes) for each in distinct
    ]
