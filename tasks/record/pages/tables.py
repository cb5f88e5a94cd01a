"""One description of a table, written as HTML for the page and as Markdown for the terminal."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: its title, the text of a row, a smaller `note` behind it, and whether the text is `strong`."""

    title: str
    show: Callable[[Row], str]
    note: Callable[[Row], str] = lambda row: ""
    strong: Callable[[Row], bool] = lambda row: False
    numeric: bool = True
    heads_row: bool = False  # the cell names its row, for a reader who hears the table


METHOD = Column(title="Method", show=lambda row: row["method"], numeric=False, heads_row=True)
PATTERN = Column(title="Pattern", show=lambda row: row["pattern"], numeric=False)


def chosen(title: str) -> Column:
    """Says of which rows `chosen` is true."""
    return Column(title=title, show=lambda row: "yes" if row["chosen"] else "", strong=lambda row: row["chosen"])


def to_html(
    columns: Sequence[Column], rows: Iterable[Row], name: str, caption: str, mark: Callable[[Row], str] = lambda row: ""
) -> str:
    """A caption, and below it a table that scrolls inside its own box; `mark` gives a row's class."""
    body = "".join(_html_row(columns, row, mark(row)) for row in rows)
    return _html_table(columns, f"<tbody>{body}</tbody>", name, caption)


def grouped_html(
    columns: Sequence[Column], groups: Sequence[tuple[str, str, Sequence[Row]]], name: str, caption: str
) -> str:
    """One table of several groups of rows, so that their columns line up; each has a heading and a smaller note to it.

    A group that is alone has no heading, and its note stands behind the caption.
    """
    if len(groups) == 1:
        [(_, note, rows)] = groups
        return to_html(columns, rows, name, f"{caption} {note}".strip())
    bodies = (
        f'<tbody><tr class="group"><th scope="rowgroup" colspan="{len(columns)}">{escape(heading)}'
        f"{f' <small>{escape(note)}</small>' if note else ''}</th></tr>"
        f"{''.join(_html_row(columns, row, '') for row in rows)}</tbody>"
        for heading, note, rows in groups
    )
    return _html_table(columns, "".join(bodies), name, caption)


def _html_table(columns: Sequence[Column], bodies: str, name: str, caption: str) -> str:
    head = "".join(f'<th scope="col"{_align(column)}>{escape(column.title)}</th>' for column in columns)
    return (
        f'<p class="caption">{escape(caption)}</p>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f"<table><thead><tr>{head}</tr></thead>{bodies}</table></div>"
    )


def section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def table_section(title: str, columns: Sequence[Column], rows: Sequence[Row], caption: str) -> str:
    """A section that is one table of the same name; nothing where there are no rows."""
    return section(title, to_html(columns, rows, title, caption)) if rows else ""


def fold(summary: str, content: str) -> str:
    """Content that a reader opens by its summary."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def by_run(rows: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows of a run after those of another, each with the name of its method and pattern."""
    for _, found in groupby(rows, key=lambda row: row["run"]):
        own = list(found)
        yield f"{own[0]['method']} {own[0]['pattern']}", own


def to_markdown(columns: Sequence[Column], rows: Iterable[Row]) -> str:
    """A table whose columns line up in a terminal too."""
    texts = [
        [column.title for column in columns],
        *([_markdown_cell(column, row) for column in columns] for row in rows),
    ]
    widths = [max(3, *(len(line[place]) for line in texts)) for place in range(len(columns))]
    rule = ["-" * (width - 1) + (":" if column.numeric else "-") for column, width in zip(columns, widths, strict=True)]
    lines = [
        " | ".join(
            cell.rjust(width) if column.numeric else cell.ljust(width)
            for cell, column, width in zip(line, columns, widths, strict=True)
        )
        for line in (texts[0], rule, *texts[1:])
    ]
    return "".join(f"| {line} |\n" for line in lines)


def _markdown_cell(column: Column, row: Row) -> str:
    text = column.show(row)
    parts = (f"**{text}**" if column.strong(row) else text, column.note(row))
    return " ".join(filter(None, parts)).replace("|", "\\|")


def _html_row(columns: Sequence[Column], row: Row, mark: str) -> str:
    cells = "".join(_html_cell(column, row) for column in columns)
    return f'<tr class="{escape(mark)}">{cells}</tr>' if mark else f"<tr>{cells}</tr>"


def _html_cell(column: Column, row: Row) -> str:
    text, note = escape(column.show(row)), column.note(row)
    content = f"<strong>{text}</strong>" if column.strong(row) else text
    content += f" <small>{escape(note)}</small>" if note else ""
    if column.heads_row:
        return f'<th scope="row"{_align(column)}>{content}</th>'
    return f"<td{_align(column)}>{content}</td>"


def _align(column: Column) -> str:
    return ' class="number"' if column.numeric else ""
