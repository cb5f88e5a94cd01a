"""Databases that are held by somebody else, damaged, or not to be written: DuckDB's, MLflow's and Prefect's."""

import sqlite3
from contextlib import closing
from typing import Any

import duckdb

from bench.faults.subject import end, start
from bench.faults.tries import Try, judged

GARBAGE = b"this is no database\n" * 1000


def hold_duckdb(of: Try) -> dict[str, Any]:
    """Another process, this one, has the file open for the whole of the run."""
    with duckdb.connect(of.artifacts / "espalier.duckdb"):
        return judged(of, end(start(of.artifacts)))


def damage_duckdb(of: Try) -> dict[str, Any]:
    (of.artifacts / "espalier.duckdb").write_bytes(GARBAGE[of.number :])
    return judged(of, end(start(of.artifacts)))


def hold_mlflow(of: Try) -> dict[str, Any]:
    """Somebody has begun to write into MLflow's database and does not end."""
    with closing(sqlite3.connect(of.artifacts / "mlflow.db")) as held:
        held.execute("BEGIN EXCLUSIVE")
        first = end(start(of.artifacts))
    return judged(of, first)


def damage_mlflow(of: Try) -> dict[str, Any]:
    return _damaged(of, "mlflow.db")


def damage_prefect(of: Try) -> dict[str, Any]:
    return _damaged(of, "prefect/prefect.db")


def _damaged(of: Try, name: str) -> dict[str, Any]:
    """Garbage in its place; whoever reads the error moves it away, and gives the command again."""
    file = of.artifacts / name
    file.write_bytes(GARBAGE)
    for beside in file.parent.glob(f"{file.name}-*"):  # SQLite's journal
        beside.unlink()
    first = end(start(of.artifacts))
    file.unlink()
    return judged(of, first)
