"""Documents from the files a user brings. A slice counts rows from 0, as in Python: `[400:]`, `[:5]`, `[10:20]`."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any


def read_txt(path: Path, start: int, stop: int | None) -> list[str]:
    """Rows are lines; those of the slice, joined back unchanged, are one document."""
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:  # any other line end stays as it is
            return ["".join(islice(lines, start, stop))]
    except UnicodeDecodeError as error:
        raise ValueError(f"source: {path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def read_jsonl(path: Path, start: int, stop: int | None) -> list[str]:
    """Rows are lines of JSON; the string under `text` in each is a document."""
    with path.open("rb") as lines:
        return list(texts_of(path, map(_object, islice(lines, start, stop)), start))


def texts_of(path: Path, rows: Iterable[Any], start: int) -> Iterator[str]:
    """The `text` of each row; the first row that has none, or none that can be encoded, is a ValueError."""
    for number, row in enumerate(rows, start):
        text = row.get("text") if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise ValueError(f"source: row {number} of {path} has no string under 'text'")
        try:
            text.encode()
        except UnicodeEncodeError as error:  # JSON can write half of a surrogate pair
            raise ValueError(f"source: row {number} of {path} is not valid Unicode") from error
        yield text


def _object(line: bytes) -> Any:
    """The value of a line; None for what is not JSON in UTF-8, which then has no text."""
    try:
        return json.loads(line.decode())
    except ValueError:
        return None
