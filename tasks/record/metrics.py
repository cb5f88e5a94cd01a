"""Every number of every run: one Parquet file per recorded group of rows, read through DuckDB views.

    metrics/<table>/<run>-<grain>.parquet

A row is the columns of `Context` and then those of the table's row type, typed by the dataclasses. `<grain>` is a hash
of which rows the file holds, so a stage that is resumed and recorded again replaces its own rows and nobody else's.
DuckDB owns no data: `espalier.duckdb` keeps only views over the Parquet files, for clients from outside. It may be
deleted at any time, and the end of the next run writes it anew; nothing here reads it.

The row in `runs` is a run's last. The other views show the rows of the runs that have it: what a run that failed or was
killed wrote is in the files and in no view.
"""

import dataclasses
import glob
import hashlib
import io
import os
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.handles import Context
from tasks.record import home
from tasks.record.names import check_run
from tasks.record.tables import GRAIN, SQL, TABLES, columns, schema
from tasks.record.whole import whole_files
from tasks.secret import rows_without_secrets

OFFLINE: dict[str, Any] = {"autoinstall_known_extensions": False}  # a query never reaches for the network


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
    whole = rows_without_secrets(dataclasses.asdict(context) | dataclasses.asdict(row) for row in rows)
    content = pa.Table.from_pylist(whole, schema=schema(table))
    buffer = io.BytesIO()
    pq.write_table(content, buffer, compression="zstd")
    grain = hashlib.sha256(repr(sorted(keys)).encode()).hexdigest()[:12]
    path = _folder() / table / f"{context.run}-{grain}.parquet"
    home.write_file(path, buffer.getvalue())
    return path


def query(sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
    """The rows of a SELECT over the tables, as dicts; `parameters` fill `?` (a sequence) or `$name` (a mapping).

    Raises ValueError, in one line, if the artifacts folder cannot be made, or a Parquet file that it reads is damaged.
    """
    try:
        home.root().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = f"artifacts: cannot write to {home.root()} ({error.strerror}); set ESPALIER_ARTIFACTS"
        raise ValueError(said) from error
    words = {"runs", *re.findall(r"\w+", sql.lower())}
    with _memory(os.getpid()).cursor() as database, whole_files(_folder()):
        _make_views(database, TABLES.keys() & words, "TEMP VIEW")  # all 33 took 0.11 s a question
        database.execute(sql, parameters)
        return _rows(database)


def keep_views() -> None:
    """Write the views of all tables into `espalier.duckdb`, for any DuckDB client.

    It is replaced as a whole, so one that a client holds open, or that is damaged, is no hindrance. Raises ValueError,
    in one line, if a Parquet file is damaged.
    """
    with home.draft_folder() as folder:
        file = folder / "espalier.duckdb"
        with duckdb.connect(file, config=OFFLINE) as database, whole_files(_folder()):
            _make_views(database, TABLES, "VIEW")
        file.replace(home.root() / file.name)


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


@cache
def _memory(process: int) -> duckdb.DuckDBPyConnection:
    """An empty database in memory: a cursor of it has temporary views of its own, and costs 19 ms less than opening."""
    return duckdb.connect(config=OFFLINE | {"enable_external_file_cache": False})


def _make_views(database: duckdb.DuckDBPyConnection, tables: Collection[str], kind: str) -> None:
    for table in (table for table in TABLES if table in tables):  # in that order: the others are over `runs`
        database.execute(f"CREATE OR REPLACE {kind} {table} AS {_finished(table)}")


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


def _finished(table: str) -> str:
    """The SQL of the rows that a view shows: of the runs all, of another table those whose run is in `runs`."""
    return _written(table) if table == "runs" else f"FROM ({_written(table)}) SEMI JOIN runs USING (run)"


def _written(table: str) -> str:
    """The SQL of all rows on disk: an empty typed row set, then the files. So no file is an empty table with all its
    columns, and a column that came later is null in older files."""
    typed = ", ".join(f"NULL::{SQL[kind]} AS {name}" for name, (kind, _) in columns(table).items())
    sql = f"SELECT {typed} WHERE false"
    folder = _folder() / table
    if any(folder.glob("*.parquet")):
        pattern = f"{glob.escape(str(folder))}/*.parquet".replace("'", "''")
        sql += f" UNION ALL BY NAME FROM read_parquet('{pattern}', union_by_name=true, hive_partitioning=false)"
    return sql
