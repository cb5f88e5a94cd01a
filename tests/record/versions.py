"""Runs with a row in `runs` that names a version, for what starts from a run or from a version."""

import dataclasses
import json

from tasks.handles import Context, RunRow, StageRow
from tasks.record import metrics
from tests.record.plausible import CONTEXT, evaluation, record_run, speed
from tests.record.publishing import publish, stub

CODE = {"prune": "1" * 64, "evaluate": "2" * 64}
PARAMETERS = {"pattern": "2:4", "pruner": {"method": "wanda"}, "seed": 0}


def record_version(context: Context = CONTEXT, version: str | None = "stories/1", **parameters: object) -> None:
    """As `record_run`, with the code of its stages and the version that it registered."""
    record_run(context)
    stages = [StageRow(stage=name, seconds=1.0, cached=False, code=code) for name, code in CODE.items()]
    metrics.record(context, "stages", stages)
    _finish(context, version, json.dumps(PARAMETERS | parameters))


def publish_recorded(run: str, **measured: float) -> str:
    """Register a stub as its own version, with the rows of `record_measured`; return the version."""
    packed = stub(run)
    made = publish(run, packed, ppl=measured.get("ppl", 7.0))
    version = f"{made.name}/{made.version}"
    record_measured(dataclasses.replace(CONTEXT, run=run), packed.hash, version, **measured)
    return version


def record_measured(
    context: Context,
    checkpoint: str,
    version: str = "stories/1",
    ppl: float = 7.0,
    low: float | None = 0.95,
    size_bytes: int = 7_000_000,
) -> None:
    """What was measured of these bytes beside a dense model of perplexity 6.05 and 12.6 MB.

    `low`: the lower end of the interval of its speed; None: it was not timed.
    """
    row = evaluation(ppl=ppl, checkpoint=checkpoint, size_bytes=size_bytes)
    metrics.record(context, "evaluations", [evaluation("dense", ppl=6.05), row])
    phases = () if low is None else ("prefill", "decode")
    metrics.record(context, "speeds", [speed("pruned", phase, 1.0, low or 0.0, 1.1, "no gain") for phase in phases])
    _finish(context, version, "{}")


def _finish(context: Context, version: str | None, parameters: str) -> None:
    facts = {"command": "espalier oneshot", "parameters": parameters, "sweep": None, "seconds": 1.0}
    metrics.record(context, "runs", [RunRow(**facts, checkpoint="f" * 64, registered_version=version)])
