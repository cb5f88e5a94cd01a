"""Documents from the files a user brings. A slice counts rows from 0, as in Python: `[400:]`, `[:5]`, `[10:20]`."""

import csv
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any


def txt_rows(path: Path, start: int, stop: int | None) -> Iterator[str]:
    """Rows are lines, with their ends."""
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:  # any other line end stays as it is
            yield from islice(lines, start, stop)
    except UnicodeDecodeError as error:
        raise ValueError(f"source: {path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def jsonl_rows(path: Path, start: int, stop: int | None) -> Iterator[Any]:
    """Rows are lines of JSON; None for a line that is not JSON in UTF-8, which then has no text."""
    with path.open("rb") as lines:
        yield from map(_value, islice(lines, start, stop))


def csv_rows(path: Path, start: int, stop: int | None) -> Iterator[dict[str, str | None]]:
    """Rows are the records below the header; a record that ends early has None in its last columns."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        table = csv.DictReader(lines, strict=True)
        try:
            for number, row in enumerate(islice(table, start, stop), start):
                if None in row:
                    raise ValueError(f"source: row {number} of {path} has more fields than the header")
                yield row
        except csv.Error as error:
            raise ValueError(
                f"source: {path} cannot be read as CSV: {error} in line {table.reader.line_num}"
            ) from error
        except UnicodeDecodeError as error:
            raise ValueError(f"source: {path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def texts_of(path: Path, rows: Iterable[Any], start: int, column: str = "text") -> Iterator[str]:
    """What each row has in a column; the first row that has no text there that can be encoded is a ValueError."""
    for number, row in enumerate(rows, start):
        yield string_of(path, number, row, column)


def string_of(path: Path, number: int, row: Any, column: str) -> str:
    """What a row has in a column. ValueError, with the row's number, where it is no string or cannot be encoded."""
    text = row.get(column) if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise ValueError(f"source: row {number} of {path} has no string under {column!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can write half of a surrogate pair
        raise ValueError(f"source: row {number} of {path} is not valid Unicode") from error
    return text


def _value(line: bytes) -> Any:
    try:
        return json.loads(line.decode())
    except ValueError:
        return None
