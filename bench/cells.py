"""Benchmarks made of cells: each a line of a file, done once, so that they can be stopped and started at any moment."""

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from bench.texts import add_line, read_lines

Cell = TypeVar("Cell")  # a frozen dataclass of strings and numbers: what one run is


def left(file: Path, cells: Iterable[Cell], kind: type[Cell], done: str) -> list[Cell]:
    """Those of `cells`, of that `kind`, that have no line with the entry `done` in `file`."""
    finished = {kind(**line["cell"]) for line in read_lines(file) if "cell" in line and done in line}
    return [cell for cell in cells if cell not in finished]


def run_cells(
    file: Path,
    name: str,
    cells: Sequence[Any],
    measure: Callable[[Any], dict[str, Any]],
    until: float = math.inf,
) -> None:
    """Add a line for each cell as soon as it is measured, and say on stderr how far of `name` this is.

    None is begun once `until`, of the monotonic clock, has come.
    """
    for number, cell in enumerate(cells, 1):
        if monotonic() >= until:
            print(f"{name}: the time is up, {len(cells) - number + 1} are left", file=sys.stderr)
            return
        line = {"cell": asdict(cell)} | measure(cell)
        add_line(file, line)
        print(f"{name} {number} of {len(cells)}: {json.dumps(line)}", file=sys.stderr)
