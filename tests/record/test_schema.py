"""The page of the tables is what the row types say, and they say something of every column."""

from dataclasses import fields
from pathlib import Path

import pytest

from tasks.handles import Context
from tasks.record.metrics import GRAIN, TABLES
from tasks.record.schema import markdown

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"


def test_the_page_is_what_the_row_types_say():
    assert PAGE.read_text(encoding="utf-8") == markdown()


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_there_with_its_meaning_and_the_grain_is_in_bold(table: str):
    part = markdown().partition(f"\n## {table}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line.startswith("| ")][2:]
    names = [name.strip("*") for name, _, _ in rows]
    assert names == [field.name for field in fields(TABLES[table])]
    assert {name.strip("*") for name, _, _ in rows if name.startswith("**")} == set(GRAIN[table])
    assert all(meaning for _, _, meaning in rows)


def test_the_columns_of_every_table_are_told_once():
    part = markdown().partition("\n## Every table\n")[2].partition("\n## ")[0]
    assert all(f"{field.name}" in part for field in fields(Context))
