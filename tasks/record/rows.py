"""Rows that are content of a stage: too many to be its result, stored beside it and recorded by the flow.

`<table>.json` holds the rows of a table, in their order.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

Row = TypeVar("Row")


def save_rows(folder: Path, tables: Mapping[str, Sequence[Any]]) -> None:
    """Write the rows of each table; the same rows give the same bytes."""
    for table, rows in tables.items():
        text = ",\n".join(json.dumps(dataclasses.asdict(row)) for row in rows)
        (folder / f"{table}.json").write_text(f"[{text}]", encoding="utf-8")


def load_rows(folder: Path, table: str, kind: type[Row]) -> list[Row]:
    """Rows of a table as `save_rows` was given them."""
    return [kind(**row) for row in json.loads((folder / f"{table}.json").read_text(encoding="utf-8"))]
