"""Every table that a run writes: its row type, the columns that tell the rows of one run apart, and its types."""

from functools import cache
from types import NoneType
from typing import Any, get_args, get_type_hints

import pyarrow as pa

from tasks import handles
from tasks.evaluate.benchmark_row import BenchmarkRow
from tasks.evaluate.forecast_row import ForecastRow
from tasks.evaluate.profile_row import ProfileRow
from tasks.handles import Context
from tasks.prune.activation.rows import LearnedRow, ProductRow, SparseInputRow
from tasks.prune.structure.cut_row import CutRow
from tasks.prune.structure.rows import CutStageRow, RemovalRow, RepairRow, SplitRow
from tasks.train_controller.allocators.rows import AllocationRow, AllocatorRow, CandidateRow, LevelRow, SearchRow
from tasks.train_controller.rows import ControllerRow, DecisionRow, EpisodeRow, LearningRow, PromptRow

TABLES: dict[str, type] = {
    "runs": handles.RunRow,
    "stages": handles.StageRow,
    "datasets": handles.DatasetRow,
    "blocks": handles.BlockRow,
    "linears": handles.LinearRow,
    "units": handles.UnitRow,
    "importances": handles.ImportanceRow,
    "cuts": CutRow,
    "slices": handles.SliceRow,
    "removals": RemovalRow,
    "splits": SplitRow,
    "repairs": RepairRow,
    "levels": LevelRow,
    "allocators": AllocatorRow,
    "searches": SearchRow,
    "allocations": AllocationRow,
    "candidates": CandidateRow,
    "cut_stages": CutStageRow,
    "recoveries": handles.RecoveryRow,
    "evaluations": handles.EvaluationRow,
    "benchmarks": BenchmarkRow,
    "speeds": handles.SpeedRow,
    "forecasts": ForecastRow,
    "profiles": ProfileRow,
    "sparse_inputs": SparseInputRow,
    "learned": LearnedRow,
    "products": ProductRow,
    "prompts": PromptRow,
    "episodes": EpisodeRow,
    "learning": LearningRow,
    "decisions": DecisionRow,
    "controllers": ControllerRow,
    "artifacts": handles.ArtifactRow,
}
GRAIN: dict[str, tuple[str, ...]] = {  # the columns that tell the rows of one run apart
    "runs": (),
    "stages": ("stage",),
    "datasets": ("role", "source"),
    "blocks": ("block",),
    "linears": ("block", "linear"),
    "units": ("importance", "block", "kind", "unit"),
    "importances": ("importance", "kind"),
    "cuts": (),
    "slices": ("block",),
    "removals": ("block", "kind"),
    "splits": ("split",),
    "repairs": ("share",),
    "levels": ("block", "kind", "rungs"),
    "allocators": (),
    "searches": ("move",),
    "allocations": ("block", "kind"),
    "candidates": ("name",),
    "cut_stages": ("stage",),
    "recoveries": ("source",),
    "evaluations": ("subject", "source", "window"),
    "benchmarks": ("subject", "task", "metric"),
    "speeds": ("subject", "phase", "batch", "tokens"),
    "forecasts": ("subject", "phase"),
    "profiles": ("profile",),
    "sparse_inputs": ("block", "linears"),
    "learned": ("block",),
    "products": ("in_features", "out_features", "dropped", "dtype", "product", "threads", "tokens"),
    "prompts": ("prompt",),
    "episodes": ("prompt", "action"),
    "learning": ("learner", "floor", "learner_seed", "step"),
    "decisions": ("policy", "floor", "learner_seed", "prompt", "action", "live"),
    "controllers": ("policy", "floor", "live"),
    "artifacts": ("kind", "hash"),
}
ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
SQL = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}


@cache
def columns(table: str) -> dict[str, tuple[type, bool]]:
    """Column name -> its plain type and whether it may be null, of `Context` followed by the row type."""
    hints = get_type_hints(Context) | get_type_hints(TABLES[table])
    return {name: plain(hint) for name, hint in hints.items()}


def schema(table: str) -> pa.Schema:
    return pa.schema([pa.field(name, ARROW[kind], nullable) for name, (kind, nullable) in columns(table).items()])


def plain(hint: Any) -> tuple[type, bool]:
    """(str, True) of `str | None`: a column's type, and whether it may be null."""
    return next((kind for kind in get_args(hint) if kind is not NoneType), hint), NoneType in get_args(hint)
