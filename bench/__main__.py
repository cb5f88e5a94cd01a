"""`python -m bench`: time and memory of one-shot pruning beside the textbook formulation of each method."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from transformers.utils import logging

from bench.models import SUBJECTS
from bench.pruning import compare_prunings
from bench.selection import compare_selections
from bench.sweep import compare_sweeps
from bench.table import Bench, write
from tasks.record.provenance import machine, versions

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    choice = parse(sys.argv[1:])
    torch.set_num_threads(choice.threads)
    logging.disable_progress_bar()
    started, load = datetime.now(UTC), os.getloadavg()[0]
    skipped, selections, sweeps, prunings = [], [], [], []
    for name in choice.models:
        if missing := SUBJECTS[name].missing():
            skipped.append(f"{name}, {missing}")
            say(f"skipped: {skipped[-1]}")
            continue
        for selection in compare_selections(name, choice.rounds):
            selections.append(selection)
            say(f"{name}  selection of {selection.shape}  {selection.method}  {selection.pattern}")
        for sweep in compare_sweeps(name, choice.rounds):
            sweeps.append(sweep)
            say(f"{name}  SparseGPT on one block  {sweep.pattern}")
        for pruning in compare_prunings(name, choice.rounds, choice.threads):
            prunings.append(pruning)
            say(f"{name}  pruning  {pruning.method}  {pruning.pattern}")
    bench = Bench(
        command=shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        date=started.isoformat(timespec="seconds"),
        machine=machine(),
        versions=versions(),
        threads=choice.threads,
        rounds=choice.rounds,
        load=(load, os.getloadavg()[0]),
        skipped=tuple(skipped),
        selections=tuple(selections),
        sweeps=tuple(sweeps),
        prunings=tuple(prunings),
    )
    print(write(bench, choice.results, "oneshot"))


def parse(arguments: list[str]) -> argparse.Namespace:
    about = [f"  {name}  {subject.about}" for name, subject in SUBJECTS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=f"{__doc__}\n\nmodels:\n" + "\n".join(about),
        epilog="Writes <date>-oneshot.json with every raw time, and oneshot.md; prints the latter.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), help="which to prune (both)")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--rounds", type=at_least(2), default=6, help="measurements of each side (6)")
    effort.add_argument("--quick", dest="rounds", action="store_const", const=2, help="2 rounds: does it run")
    threads = torch.get_num_threads()
    parser.add_argument("--threads", type=at_least(1), default=threads, help=f"of torch ({threads} on this machine)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to (bench/results)")
    return parser.parse_args(arguments)


def at_least(least: int) -> Callable[[str], int]:
    """A reader of whole numbers for argparse, whose error says what is valid."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} given, valid is a whole number from {least}")
        return int(text)

    return read


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
