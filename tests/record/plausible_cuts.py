"""A plausible run of `slice` to record, cut in two stages, for the tests of this room."""

import dataclasses

from tasks.handles import (
    Context,
    ImportanceRow,
    RecoveryRow,
    SliceRow,
    UnitRow,
)
from tasks.prune.structure.cut_row import CutRow
from tasks.prune.structure.rows import CutStageRow, RemovalRow, RepairRow, SplitRow
from tasks.record import metrics
from tests.record.plausible import CONTEXT, evaluation, finish, forecast

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
    gone = [
        RemovalRow(block=2, kind="blocks", parameters=369_024, score=0.01),
        RemovalRow(block=0, kind="ffn", parameters=221_184, score=0.015),
        RemovalRow(block=1, kind="ffn", parameters=221_184, score=0.02),
    ]
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
        removed_flops=0.4,
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
