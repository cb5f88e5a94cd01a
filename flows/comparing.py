"""`espalier runs` and `espalier compare`: what has been run, where one run came from, and two of them side by side."""

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from typing import Any

NAMED = "a run, or a version: NAME/3 or NAME@champion"


def say_runs(made: argparse.ArgumentParser) -> None:
    made.add_argument("named", nargs="?", metavar="RUN", help=f"say what this one came of: {NAMED}")
    made.add_argument("--json", action="store_true", help="the last line on stdout is one JSON object")


def say_compare(made: argparse.ArgumentParser) -> None:
    for name in ("A", "B"):
        made.add_argument(name.lower(), metavar=name, help=NAMED)
    made.add_argument("--json", action="store_true", help="the last line on stdout is one JSON object")


def run_runs(arguments: argparse.Namespace) -> int:
    from tasks.record.metrics import query_named
    from tasks.record.runs.listing import runs_table

    if arguments.named is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        show({"runs": query_named("runs")} if arguments.json else runs_table(width))
        return 0

    from tasks.record.runs.comparison_words import lineage_words
    from tasks.record.runs.lineage import lineage_of

    lineage = lineage_of(arguments.named)
    show(asdict(lineage) if arguments.json else lineage_words(lineage))
    return 0


def run_compare(arguments: argparse.Namespace) -> int:
    from tasks.record.runs.comparison import compare
    from tasks.record.runs.comparison_words import comparison_words
    from tasks.record.runs.lineage import lineage_of

    found = compare(*(lineage_of(named) for named in (arguments.a, arguments.b)))
    show(asdict(found) if arguments.json else comparison_words(found))
    return 0


def show(said: str | dict[str, Any]) -> None:
    """Words as they are, facts as one line of JSON."""
    print(said.rstrip("\n") if isinstance(said, str) else json.dumps(said))
