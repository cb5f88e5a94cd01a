"""A plausible run of `activation` to record, for the tests of this room."""

import dataclasses

from tasks.handles import Context
from tasks.prune.activation.rows import LearnedRow, ProductRow, SparseInputRow
from tasks.record import metrics
from tests.record.plausible import CONTEXT, evaluation, finish, speed

RUN = dataclasses.replace(CONTEXT, run="a1", flow="activation", method="threshold+lpts", pattern="50%")
GATE = SparseInputRow(
    block=0,
    linears="mlp.gate_proj+mlp.up_proj",
    in_features=64,
    out_features=256,
    asked=0.5,
    dropped=0.4921,
    energy_kept=0.9312,
    threshold=0.1234,
)
DOWN = dataclasses.replace(
    GATE, linears="mlp.down_proj", in_features=128, out_features=64, dropped=0.5123, energy_kept=0.975, threshold=0.0321
)
INPUTS = [GATE, DOWN, dataclasses.replace(GATE, block=1, dropped=0.5121, energy_kept=0.9112)]
LEARNED = [
    LearnedRow(block=i, steps=40, error_from=0.04, error_to=0.03 - i / 100, seconds=1.5, loss_from=2.5, loss_to=2.25)
    for i in range(2)
]
PRODUCT = ProductRow(
    in_features=64,
    out_features=256,
    dropped=0.5,
    dtype="float32",
    product="compiled",
    threads=2,
    tokens=1,
    dense_ms=0.25,
    sparse_ms=0.125,
    sparse=True,
)
PRODUCTS = [PRODUCT, dataclasses.replace(PRODUCT, tokens=2, sparse_ms=0.375, sparse=False)]


def record_inputs(context: Context = RUN, sweep: str | None = None, sparsity: float = 0.4987) -> None:
    """Record a run whose model reads about half of its inputs, evaluated and timed beside the dense one."""
    timed = [speed("dense", phase, 1.0, 1.0, 1.0, "reference") for phase in ("prefill", "decode")]
    timed += [speed("pruned", "prefill", 0.7, 0.6, 0.8, "slower"), speed("pruned", "decode", 1.4, 1.3, 1.5, "faster")]
    dense = evaluation("dense", nll=1.8, ppl=6.05)
    result = evaluation("pruned", ppl=7.25, parameters=dense.parameters + 640, sparsity=sparsity, size_bytes=12_603_000)
    tables = {"sparse_inputs": INPUTS, "learned": LEARNED, "products": PRODUCTS, "speeds": timed}
    for table, rows in (tables | {"evaluations": [dense, result]}).items():
        metrics.record(context, table, rows)
    finish(context, sweep)
