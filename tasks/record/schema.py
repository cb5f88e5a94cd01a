"""What every column of every table means, as a page: `python -m tasks.record.schema > docs/tables.md`.

The row types are the only source: a table's docstring states its grain, and the comment behind a field its meaning.
"""

import inspect
import io
import sys
import tokenize
from dataclasses import fields
from typing import get_type_hints

from tasks.handles import Context
from tasks.record.tables import GRAIN, SQL, TABLES, plain

HEAD = """# The tables

Each run adds rows to tables of Parquet files; `espalier sql "select …"` reads them through DuckDB, and so does any
client that opens `espalier.duckdb`. The columns in bold tell the rows of one run apart. A column that may be empty says
so. This page is made from the row types (`python -m tasks.record.schema`), and a test compares the two.
"""
CONTEXT = "The columns that every table begins with. "


def markdown() -> str:
    """The whole page: first the columns that all tables have, then those of each table."""
    parts = [HEAD, "## Every table\n", CONTEXT + _sentence(Context) + "\n", _columns(Context, key=("run",))]
    for name, kind in TABLES.items():
        grain = _sentence(kind).removeprefix(f"{name}: ")
        parts += [f"## {name}\n", f"{grain[0].upper()}{grain[1:]}\n"]
        parts.append(_columns(kind, GRAIN[name]))
    return "\n".join(parts)


def _columns(kind: type, key: tuple[str, ...]) -> str:
    types, meanings = get_type_hints(kind), _comments(kind)
    lines = ["| column | type | what it is |", "| --- | --- | --- |"]
    for field in fields(kind):
        name = f"**{field.name}**" if field.name in key else field.name
        type_, may_be_empty = plain(types[field.name])
        sql = SQL[type_] + (", or empty" if may_be_empty else "")
        lines.append(f"| {name} | {sql} | {meanings.get(field.name, '').replace('|', 'or')} |")
    return "\n".join(lines) + "\n"


def _sentence(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split())


def _comments(kind: type) -> dict[str, str]:
    """Field -> the comment on its line."""
    found: dict[str, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(kind)).readline):
        if token.type == tokenize.COMMENT and ":" in (before := token.line[: token.start[1]]):
            found[before.partition(":")[0].strip()] = token.string.lstrip("# ")
    return found


if __name__ == "__main__":
    sys.stdout.write(markdown())
