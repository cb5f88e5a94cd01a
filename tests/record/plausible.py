"""A plausible small run to record, for the tests of this room."""

import dataclasses

from tasks.evaluate.forecast_row import ForecastRow
from tasks.handles import (
    ArtifactRow,
    BlockRow,
    Context,
    DatasetRow,
    EvaluationRow,
    LinearRow,
    RunRow,
    SpeedRow,
    StageRow,
)
from tasks.record import metrics

CONTEXT = Context(
    run="r1",
    flow="oneshot",
    model="stories",
    model_hash="a" * 64,
    dataset_hash="d" * 64,
    method="wanda",
    pattern="2:4",
    seed=0,
    versions='{"espalier": "0.1.0", "python": "3.11.7", "torch": "2.13.0"}',
    machine='{"cores": 2, "gpu": "none", "memory_bytes": 25769803776, "platform": "Linux", "processor": "A CPU"}',
    recorded_at="2026-01-02T03:04:05+00:00",
)


def evaluation(subject: str = "pruned", **changes) -> EvaluationRow:
    row = EvaluationRow(
        subject=subject,
        checkpoint=("c" if subject == "pruned" else "a") * 64,
        source="docs",
        window=256,
        windows=371,
        tokens=94605,
        nll=3.0,
        ppl=20.0855,
        bits_per_byte=1.31,
        parameters=3_148_000,
        size_bytes=7_000_000 if subject == "pruned" else 12_600_000,
        memory_bytes=12_592_000,
        kv_bytes=786_432 if subject == "pruned" else 1_048_576,
        sparsity=0.5 if subject == "pruned" else 0.0,
    )
    return dataclasses.replace(row, **changes)


def speed(
    subject: str,
    phase: str,
    ratio: float,
    low: float,
    high: float,
    verdict: str,
    device: str = "cpu",
    sparse_linears: int = 0,
) -> SpeedRow:
    return SpeedRow(
        subject=subject,
        phase=phase,
        batch=1,
        tokens=128,
        repetitions=15,
        latency_ms=40 / ratio,
        tokens_per_s=3200 * ratio,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        verdict=verdict,
        device=device,
        sparse_linears=sparse_linears,
    )


def forecast(phase: str, ratio: float, measured: float) -> ForecastRow:
    return ForecastRow(
        phase=phase,
        forecast_latency_ms=40 / ratio,
        forecast_ratio=ratio,
        measured_ratio=measured,
        error=ratio / measured - 1,
    )


def record_run(
    context: Context = CONTEXT,
    sweep: str | None = None,
    pruned: EvaluationRow | None = None,
    device: str = "cpu",
    sparse_linears: int = 0,
    sweep_points: int | None = None,
    decode: tuple[float, float, float] = (1.12, 1.07, 1.18),
) -> None:
    """Record every table of one run: two blocks of two linears, dense and pruned evaluated and timed on `device`."""
    blocks = [BlockRow(block=i, sparsity=0.5, error=0.02 * (i + 1), seconds=0.4) for i in range(2)]
    linears = [
        LinearRow(
            block=i,
            linear=name,
            out_features=64,
            in_features=64,
            zeros=2048,
            sparsity=0.5,
            error=0.01 * (i + 1),
            seconds=0.1,
        )
        for i in range(2)
        for name in ("self_attn.q_proj", "mlp.down_proj")
    ]
    speeds = [
        speed("dense", "prefill", 1.0, 1.0, 1.0, "reference", device),
        speed("pruned", "prefill", 1.01, 0.97, 1.05, "no gain", device, sparse_linears),
        speed("dense", "decode", 1.0, 1.0, 1.0, "reference", device),
        speed("pruned", "decode", *decode, "faster", device, sparse_linears),
    ]
    artifacts = [
        ArtifactRow(kind="checkpoint", hash="f" * 64, folder="store/checkpoints/f", size_bytes=12_600_000),
        ArtifactRow(kind="packed", hash="c" * 64, folder="store/packed/c", size_bytes=7_000_000),
    ]
    stages = [
        StageRow(stage=name, seconds=1.5, cached=name == "tokenize") for name in ("tokenize", "prune", "evaluate")
    ]
    metrics.record(context, "stages", stages)
    record_texts(context)
    metrics.record(context, "blocks", blocks)
    metrics.record(context, "linears", linears)
    metrics.record(context, "evaluations", [evaluation("dense", nll=1.8, ppl=6.05), pruned or evaluation()])
    metrics.record(context, "speeds", speeds)
    metrics.record(context, "artifacts", artifacts)
    finish(context, sweep, sweep_points=sweep_points)


def record_texts(context: Context = CONTEXT, calibration_hash: str = "b" * 64, role: str = "calibration") -> None:
    """Record the text that the run of `context` is calibrated on (or its `role`), and the one it is evaluated on."""
    for part, dataset_hash in ((role, calibration_hash), ("evaluation", context.dataset_hash)):
        row = DatasetRow(role=part, source="docs", documents=99, text_bytes=9999, tokens=999, windows=39, window=256)
        metrics.record(dataclasses.replace(context, dataset_hash=dataset_hash), "datasets", [row])


def finish(
    context: Context = CONTEXT,
    sweep: str | None = None,
    parameters: str = '{"pattern": "2:4", "pruner": "wanda"}',
    sweep_points: int | None = None,
) -> None:
    """Record the row of `runs`, without which the views show nothing of a run."""
    run = RunRow(
        command="espalier oneshot --pruner wanda --pattern 2:4",
        parameters=parameters,
        sweep=sweep,
        sweep_points=sweep_points,
        seconds=12.5,
        checkpoint="c" * 64,
        registered_version=None,
    )
    metrics.record(context, "runs", [run])
