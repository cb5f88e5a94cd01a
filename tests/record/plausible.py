"""A plausible small run to record, for the tests of this room."""

import dataclasses

from tasks.evaluate.forecast_row import ForecastRow
from tasks.evaluate.profile_row import ProfileRow
from tasks.handles import (
    ArtifactRow,
    BlockRow,
    Context,
    DatasetRow,
    EvaluationRow,
    ImportanceRow,
    LinearRow,
    RecoveryRow,
    RunRow,
    SliceRow,
    SpeedRow,
    StageRow,
    UnitRow,
)
from tasks.prune.structure.cut_row import CutRow
from tasks.prune.structure.rows import CutStageRow, RemovalRow, RepairRow, SplitRow
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
        speed("pruned", "decode", 1.12, 1.07, 1.18, "faster", device, sparse_linears),
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


CUT = dataclasses.replace(CONTEXT, run="c1", flow="slice", method="taylor+repair+recover", pattern="-30%")


def record_cut(context: Context = CUT, parameters: int = 2_400_000, sweep: str | None = None, **changes) -> None:
    """Record a run that cut units out of two blocks, held scores against losses and trained what was left."""
    slices = [
        SliceRow(
            block=i,
            head_groups=3,
            head_groups_before=4,
            query_heads=6,
            query_heads_before=8,
            channels=256,
            channels_before=384,
            parameters=258_432,
            parameters_before=369_024,
            cut_error=0.0639,
            repaired_error=0.0166 * (i + 1),
            attention_gain=0.01,
            ffn_gain=0.02,
            damp=0.01,
            seconds=0.4,
        )
        for i in range(2)
    ]
    scored = [
        UnitRow(importance="taylor", block=i, kind="channels", unit=0, score=1.0 + i, loss_without=2.0)
        for i in range(2)
    ]
    held = ImportanceRow(importance="taylor", kind="channels", units=768, sampled=16, correlation=0.8123)
    trained = RecoveryRow(
        source="docs",
        windows=320,
        distinct=300,
        read=81_920,
        learned=81_600,
        steps=20,
        first_loss=3.25,
        last_loss=2.9375,
    )
    gone = [RemovalRow(block=2, parameters=369_024, score=0.01)]
    ways = [
        SplitRow(
            split=heads,
            kind="head_groups",
            heads_removed=1.0 - heads,
            channels_removed=0.25 + 0.1 * heads,
            parameters=parameters,
            loss=4.5 - heads,
            repaired_loss=2.5 + heads / 8,
            chosen=heads == 0,
        )
        for heads in (0, 1)
    ]
    shares = [RepairRow(share=share, loss=2.75 - share / 4, chosen=share == 1) for share in (0.0, 0.5, 1.0)]
    missed = CutRow(
        cost="parameters",
        context=512,
        asked=0.3,
        removed=0.5331,
        form="per_layer",
        passed_over="uniform: block 0 has 8 query heads, block 1 6",
    )
    tables = {
        "cuts": [missed],
        "slices": slices,
        "removals": gone,
        "splits": ways,
        "units": scored,
        "importances": [held],
    }
    tables |= {"repairs": shares, "cut_stages": STAGES}
    tables |= {"recoveries": [trained], "forecasts": [forecast("prefill", 1.25, 1.3), forecast("decode", 1.6, 1.5)]}
    for table, rows in tables.items():
        metrics.record(context, table, rows)
    result = evaluation(parameters=parameters, sparsity=0.0, **changes)
    metrics.record(context, "evaluations", [evaluation("dense", nll=1.8, ppl=6.05), result])
    finish(context, sweep, parameters='{"budget": 0.3, "cost": "parameters"}')


FIRST = CutStageRow(
    stage=1,
    parameters=2_800_128,
    parameters_before=3_148_000,
    target=2_800_000,
    calibration_loss=2.5,
    steps=10,
    tokens=40_960,
    share=1 / 3,
    rate_from=1e-5,
    rate_to=2e-5,
    first_loss=2.25,
    last_loss=2.125,
    seconds=12.5,
)
LAST = dataclasses.replace(
    FIRST, stage=2, parameters=2_400_000, parameters_before=2_800_128, target=2_400_000, tokens=81_920, share=2 / 3
)
STAGES = (FIRST, LAST)
RUN = dataclasses.replace(CONTEXT, run="p1", flow="profiles", method="taylor+repair", pattern="profiles")
HEADS = ProfileRow(
    profile="heads20",
    blocks=6,
    head_groups=19,
    channels=2304,
    parameters=2_600_000,
    own_bytes=1_250_000,
    shared_bytes=9_150_000,
    switches=200,
    switch_median_ms=0.0312,
    switch_worst_ms=1.27,
)
DEPTH = dataclasses.replace(
    HEADS,
    profile="depth20",
    parameters=2_700_000,
    blocks=5,
    head_groups=20,
    channels=1920,
    own_bytes=0,
    switch_median_ms=0.0123,
)
NONE = dataclasses.replace(
    DEPTH, profile="none", blocks=6, head_groups=24, parameters=3_148_000, shared_bytes=12_592_000
)
METHODS = {"heads20": "heads taylor+repair", "depth20": "depth influence"}


def record_profiles(context: Context = RUN) -> None:
    """Record a run of two profiles, each evaluated and timed beside the model that they are of."""
    dense = [speed("dense", phase, 1.0, 1.0, 1.0, "reference") for phase in ("prefill", "decode")]
    rows = [evaluation("dense", nll=1.8, ppl=6.05, size_bytes=12_600_000)]
    metrics.record(context, "profiles", [NONE, HEADS, DEPTH])
    metrics.record(context, "evaluations", rows)
    metrics.record(context, "speeds", dense)
    for profile, ppl in ((HEADS, 7.25), (DEPTH, 9.125)):
        name = profile.profile
        own = dataclasses.replace(context, method=METHODS[name], pattern=name)
        row = evaluation(name, ppl=ppl, parameters=profile.parameters, sparsity=0.0, size_bytes=15_000_000)
        metrics.record(own, "evaluations", [row])
        timed = [speed(name, phase, 1.2, 1.1, 1.3, "faster") for phase in ("prefill", "decode")]
        metrics.record(own, "speeds", timed)
    finish(context)


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
