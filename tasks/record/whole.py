"""A damaged Parquet file is named: DuckDB's own words are about the statement that met it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def whole_files(metrics: Path) -> Iterator[None]:
    """Raise ValueError, in one line, for a damaged `*/*.parquet` below `metrics` on which a statement within fails."""
    try:
        yield
    except duckdb.Error as error:
        damaged = next((file for file in sorted(metrics.glob("*/*.parquet")) if not _is_whole(file)), None)
        if damaged is None:
            raise
        raise ValueError(
            f"metrics: {damaged} is damaged; remove it and give the command of its run again, what was finished is kept"
        ) from error


def _is_whole(file: Path) -> bool:
    try:
        pq.read_table(file)
    except (pa.ArrowException, OSError):
        return False
    return True
