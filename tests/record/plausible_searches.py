"""Rows of a run that searched for an allocation, as plausible as those of `plausible`."""

import dataclasses

from tasks.handles import Context
from tasks.record import metrics
from tasks.train_controller.allocators.rows import AllocationRow, AllocatorRow, CandidateRow, LevelRow, SearchRow
from tests.record.plausible import CONTEXT, evaluation, finish

SEARCH = dataclasses.replace(CONTEXT, run="f1", flow="oneshot", method="wanda+auto", pattern="70%")
KINDS = ("attention", "ffn")


def move(step: int, loss: float, best: float, **changes) -> SearchRow:
    facts = {
        "move": step,
        "allocator": "auto",
        "step": step,
        "levels": f"{step},0,1,2",
        "tokens": 4096 * (step + 1),
        "reward": -loss,
    }
    return SearchRow(**{**facts, "loss": loss, "best": best, "entropy": 2.5 - step / 2, "accepted": None, **changes})


def record_search(context: Context = SEARCH, sweep: str | None = None, cached: bool | None = None) -> None:
    """Record a run of two blocks whose allocator chose among others, and which measured each part alone."""
    tables = {
        "levels": [
            LevelRow(block=block, kind=kind, rungs=rungs, share=rungs / 4, loss=2.5 + rungs / 8, rise=rungs / 8)
            for block in range(2)
            for kind in KINDS
            for rungs in range(3)
        ],
        "allocators": [
            AllocatorRow(
                allocator="auto",
                tokens=16_384,
                limit=20_000,
                windows=16,
                held_out_windows=24,
                forwards=12,
                hits=3,
                seconds=7.25,
                dense_loss=1.8125,
                search_loss=3.125,
                held_out_loss=3.25,
                uniform_held_out_loss=3.75,
                why="milp is surely better than uniform",
                cached=cached,
            )
        ],
        "searches": [
            move(0, 3.5, 3.5),
            move(1, float("inf"), 3.5),
            move(2, 3.125, 3.125, accepted=True),
            move(3, 3.25, 3.125, accepted=False, reward=None),
        ],
        "allocations": [
            AllocationRow(
                block=block,
                kind=kind,
                rungs=12 + block,
                most=19,
                share=(12 + block) / 20,
                saved_parameters=0.175,
                saved_flops=0.175,
                saved_bytes=0.175,
                saved_kv=0.0,
            )
            for block in range(2)
            for kind in KINDS
        ],
        "candidates": [
            CandidateRow(name="milp", tokens=8192, held_out=3.25, low=-0.75, high=-0.25, chosen=True),
            CandidateRow(name="uniform", tokens=0, held_out=3.75, low=0.0, high=0.0, chosen=False),
        ],
    }
    for table, rows in tables.items():
        metrics.record(context, table, rows)
    metrics.record(context, "evaluations", [evaluation("dense", nll=1.8, ppl=6.05), evaluation()])
    finish(context, sweep)
