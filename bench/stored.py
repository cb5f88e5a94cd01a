"""What a benchmark leaves: JSON with every raw number, and Markdown, which is a view of it."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def store(measured: dict[str, Any], text: str, folder: Path, name: str) -> str:
    """Write `<date>-<name>.json` (`date` is an entry of what was measured) and `<name>.md`; returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = json.dumps(measured, indent=1) + "\n"
    (folder / f"{measured['date'][:10]}-{name}.json").write_text(stored, encoding="utf-8")
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return text


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
