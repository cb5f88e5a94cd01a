"""A plausible run of `profiles` to record, for the tests of this room."""

import dataclasses

from tasks.evaluate.profile_row import ProfileRow
from tasks.handles import (
    Context,
)
from tasks.record import metrics
from tests.record.plausible import CONTEXT, evaluation, finish, speed

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
