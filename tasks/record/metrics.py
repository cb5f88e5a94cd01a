"""Every number of every run: one Parquet file per recorded group of rows, read through DuckDB views.

    metrics/<table>/<run>-<grain>.parquet

A row is the columns of `Context` and then those of the table's row type, typed by the dataclasses. `<grain>` is a hash
of which rows the file holds, so a stage that is resumed and recorded again replaces its own rows and nobody else's.
DuckDB owns no data: `espalier.duckdb` keeps only views over the Parquet files, and may be deleted at any time.

The row in `runs` is a run's last. The other views show the rows of the runs that have it: what a run that failed or was
killed wrote is in the files and in no view.
"""

import dataclasses
import glob
import hashlib
import io
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tasks import handles
from tasks.evaluate.benchmark_row import BenchmarkRow
from tasks.evaluate.forecast_row import ForecastRow
from tasks.evaluate.profile_row import ProfileRow
from tasks.handles import Context
from tasks.prune.activation.rows import LearnedRow, ProductRow, SparseInputRow
from tasks.prune.structure.cut_row import CutRow
from tasks.prune.structure.rows import CutStageRow, RemovalRow, RepairRow, SplitRow
from tasks.record import home
from tasks.record.names import check_run
from tasks.record.whole import whole_files
from tasks.secret import row_without_secrets
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
OFFLINE: dict[str, Any] = {"autoinstall_known_extensions": False}  # a query never reaches for the network
SQL = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}


def record(context: Context, table: str, rows: Sequence[Any]) -> Path:
    """Write the rows as one Parquet file and return its path; recording the same rows again replaces them.

    Raises ValueError for an unknown table, a run id that is no file name, and two rows of the same grain; TypeError for
    rows of another type than TABLES[table]; pyarrow.ArrowInvalid for None in a column that is not optional.
    """
    row_type = _row_type(table)
    check_run(context.run)
    if other := next((type(row) for row in rows if not isinstance(row, row_type)), None):
        raise TypeError(f"{table} takes {row_type.__name__}, not {other.__name__}")
    keys = [tuple(getattr(row, name) for name in GRAIN[table]) for row in rows]
    if len(set(keys)) < len(keys):
        raise ValueError(f"{table}: two rows with the same {', '.join(GRAIN[table]) or 'run'}")
    whole = [row_without_secrets(dataclasses.asdict(context) | dataclasses.asdict(row)) for row in rows]
    content = pa.Table.from_pylist(whole, schema=_schema(table))
    buffer = io.BytesIO()
    pq.write_table(content, buffer, compression="zstd")
    grain = hashlib.sha256(repr(sorted(keys)).encode()).hexdigest()[:12]
    path = _folder() / table / f"{context.run}-{grain}.parquet"
    home.write_file(path, buffer.getvalue())
    return path


def connect() -> duckdb.DuckDBPyConnection:
    """A connection with one view per table over the rows of finished runs; use it under `with`, briefly.

    The views are written to espalier.duckdb. While another process holds that file, and where it cannot be written or
    is damaged, the connection is to a database in memory with the same views, which reads the same rows. Raises
    ValueError, in one line, if the artifacts folder cannot be made, or a Parquet file is damaged.
    """
    try:
        home.root().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = f"artifacts: cannot write to {home.root()} ({error.strerror}); set ESPALIER_ARTIFACTS"
        raise ValueError(said) from error
    try:
        return _with_views(duckdb.connect(home.root() / "espalier.duckdb", config=OFFLINE))
    except duckdb.Error:  # held, not to be written, or damaged: nothing is lost, as it owns no row
        return _with_views(duckdb.connect(config=OFFLINE))


def query(sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
    """The rows of a SELECT over the views, as dicts; `parameters` fill `?` (a sequence) or `$name` (a mapping)."""
    with connect() as database, whole_files(_folder()):
        database.execute(sql, parameters)
        return _rows(database)


def ask(sql: str) -> list[dict[str, Any]]:
    """The rows of a user's statement, which can change nothing: it sees a copy of the tables in memory, and no disk.

    Raises ValueError, in one line, if the artifacts folder is not there or DuckDB refuses the statement.
    """
    if not home.root().is_dir():
        raise ValueError(f"artifacts: there is no folder {home.root()}; set ESPALIER_ARTIFACTS to the one to ask")
    with duckdb.connect(config=OFFLINE) as database:
        with whole_files(_folder()):
            for table in TABLES:
                database.execute(f"CREATE TABLE {table} AS {_finished(table)}")
        database.execute("SET enable_external_access = false; SET lock_configuration = true")
        try:
            database.execute(sql)
            return _rows(database)
        except duckdb.Error as error:
            raise ValueError(f"statement: {' '.join(str(error).split())}") from error


def query_named(name: str, **parameters: Any) -> list[dict[str, Any]]:
    """Run `queries/<name>.sql` with its `$name` parameters. Raises ValueError that lists the names there are."""
    queries = {Path(file.name).stem: file for file in resources.files("tasks.record").joinpath("queries").iterdir()}
    if name not in queries:
        raise ValueError(f"query: {name!r} must be one of {', '.join(sorted(queries))}")
    return query(queries[name].read_text(encoding="utf-8"), parameters)


def plain(hint: Any) -> tuple[type, bool]:
    """(str, True) of `str | None`: a column's type, and whether it may be null."""
    return next((kind for kind in get_args(hint) if kind is not NoneType), hint), NoneType in get_args(hint)


def _with_views(database: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    try:
        with whole_files(_folder()):
            for table in TABLES:
                database.execute(f"CREATE OR REPLACE VIEW {table} AS {_finished(table)}")
    except BaseException:
        database.close()
        raise
    return database


def _rows(database: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """What the last statement answered."""
    names = [column[0] for column in database.description or ()]
    return [dict(zip(names, row, strict=True)) for row in database.fetchall()]


def _folder() -> Path:
    return home.root() / "metrics"


def _row_type(table: str) -> type:
    if table not in TABLES:
        raise ValueError(f"table: {table!r} must be one of {', '.join(TABLES)}")
    return TABLES[table]


@cache
def _columns(table: str) -> dict[str, tuple[type, bool]]:
    """Column name -> its plain type and whether it may be null, of `Context` followed by the row type."""
    hints = get_type_hints(Context) | get_type_hints(TABLES[table])
    return {name: plain(hint) for name, hint in hints.items()}


def _schema(table: str) -> pa.Schema:
    return pa.schema([pa.field(name, ARROW[kind], nullable) for name, (kind, nullable) in _columns(table).items()])


def _finished(table: str) -> str:
    """The SQL of the rows that a view shows: of the runs all, of another table those whose run is in `runs`."""
    return _written(table) if table == "runs" else f"FROM ({_written(table)}) SEMI JOIN runs USING (run)"


def _written(table: str) -> str:
    """The SQL of all rows on disk: an empty typed row set, then the files. So no file is an empty table with all its
    columns, and a column that came later is null in older files."""
    typed = ", ".join(f"NULL::{SQL[kind]} AS {name}" for name, (kind, _) in _columns(table).items())
    sql = f"SELECT {typed} WHERE false"
    folder = _folder() / table
    if any(folder.glob("*.parquet")):
        pattern = f"{glob.escape(str(folder))}/*.parquet".replace("'", "''")
        sql += f" UNION ALL BY NAME FROM read_parquet('{pattern}', union_by_name=true, hive_partitioning=false)"
    return sql
