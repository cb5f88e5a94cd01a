"""What a reader sees of a page, and of a table in the terminal."""

import re


def text_of(page: str) -> str:
    """Its words, in order."""
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def cells(table: str) -> list[list[str]]:
    """Of a Markdown table, the head and the rule first."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
