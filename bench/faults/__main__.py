"""`python -m bench.faults`: what was tried to break a run, and what it came to.

Each try is a line of `<results>/faults.jsonl`; tries that have one are not made again, so this can be stopped and
started at any moment. `<results>/faults.md` is a view of the lines.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.cells import left, run_cells
from bench.faults.clock import clock_ahead, clock_behind
from bench.faults.databases import damage_duckdb, damage_mlflow, damage_prefect, hold_duckdb, hold_mlflow
from bench.faults.disk import damage, fill_disk, limit_files
from bench.faults.kills import kill_both, kill_flow, kill_server
from bench.faults.subject import end, facts, make_empty, start
from bench.faults.table import markdown
from bench.faults.together import eight_at_once, same_twice
from bench.faults.tries import Try
from bench.lines import RESULTS
from bench.texts import read_lines

FAULTS: dict[str, tuple[Callable[[Try], dict[str, Any]], int]] = {  # how often, where nothing else is said
    "kill_flow": (kill_flow, 0),
    "kill_server": (kill_server, 0),
    "kill_both": (kill_both, 0),
    "damage": (damage, 12),
    "fill_disk": (fill_disk, 8),
    "limit_files": (limit_files, 4),
    "hold_duckdb": (hold_duckdb, 1),
    "damage_duckdb": (damage_duckdb, 1),
    "hold_mlflow": (hold_mlflow, 1),
    "damage_mlflow": (damage_mlflow, 1),
    "damage_prefect": (damage_prefect, 1),
    "clock_behind": (clock_behind, 1),
    "clock_ahead": (clock_ahead, 1),
    "same_twice": (same_twice, 3),
    "eight_at_once": (eight_at_once, 1),
}
KILLS = {"kill_flow": 0.6, "kill_server": 0.2, "kill_both": 0.2}  # of all kills


@dataclass(frozen=True, kw_only=True)
class Cell:
    fault: str
    number: int


def main() -> None:
    choice = parse(sys.argv[1:])
    file = choice.results / "faults.jsonl"
    if not choice.table:
        todo = left(file, cells(choice.only, choice.kills), Cell, "code")
        with TemporaryDirectory(dir=choice.place) as place:
            ready, expected, lasted_s = undisturbed(Path(place))

            def attempt(cell: Cell) -> dict[str, Any]:
                artifacts = Path(shutil.copytree(ready, Path(place, f"{cell.fault}-{cell.number}")))
                of = Try(
                    fault=cell.fault, number=cell.number, artifacts=artifacts, expected=expected, lasted_s=lasted_s
                )
                found = FAULTS[cell.fault][0](of)
                shutil.rmtree(artifacts, ignore_errors=True)
                return found

            run_cells(file, "faults", todo, attempt, time.monotonic() + 60 * choice.minutes)
    text = markdown(read_lines(file))
    (choice.results / "faults.md").write_text(text, encoding="utf-8")
    print(text)


def cells(only: Sequence[str], kills: int) -> list[Cell]:
    """Each kind of fault in turn, so that whoever stops early has tried most of them."""
    often = {name: round(kills * KILLS[name]) if name in KILLS else usual for name, (_, usual) in FAULTS.items()}
    every = [Cell(fault=name, number=number) for name in only or FAULTS for number in range(often[name])]
    return sorted(every, key=lambda cell: cell.number)


def undisturbed(place: Path) -> tuple[Path, dict[str, Any], float]:
    """Artifacts in which databases are ready and nothing is computed; what a run finds there, and how long it takes."""
    whole, ready, again = (place / name for name in ("whole", "ready", "again"))
    make_empty(whole)
    shutil.copytree(whole, ready)
    first = end(start(whole))
    shutil.copytree(whole / "prefect", ready / "prefect")
    shutil.copytree(ready, again)
    started = time.monotonic()
    second = end(start(again))
    lasted_s = time.monotonic() - started
    if first.code or second.code:
        raise RuntimeError(f"the undisturbed run failed: {first.said or second.said}")
    expected = facts(whole, first)
    if facts(again, second) != expected:
        raise RuntimeError("two undisturbed runs differ")
    return ready, expected, lasted_s


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=[], metavar="FAULT", help=", ".join(FAULTS))
    parser.add_argument("--kills", type=int, default=50, help="kills at random moments (50)")
    parser.add_argument("--minutes", type=float, default=600, help="after which no try is begun (600)")
    parser.add_argument("--place", type=Path, help="where tries have their artifacts (the system's temporary folder)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the lines (bench/results)")
    parser.add_argument("--table", action="store_true", help="try nothing, write the table")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
