"""`python -m bench.peers`: time, memory and results of one-shot pruning beside llm-compressor and nvidia-modelopt.

On first use it makes an environment for each of them in `bench/.peers`, which takes minutes and a package index.
"""

import argparse
import os
import shlex
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers.utils import logging

from bench.__main__ import RESULTS, at_least, say
from bench.peers_compare import PeerRow, compare
from bench.peers_sides import SIDES, Side
from bench.peers_subjects import SUBJECTS
from bench.peers_table import PeerBench, write
from tasks.record.provenance import machine


def main() -> None:
    choice = parse(sys.argv[1:])
    torch.set_num_threads(choice.threads)
    logging.disable_progress_bar()
    started, load = datetime.now(UTC), os.getloadavg()[0]
    skipped: list[str] = []
    rows: list[PeerRow] = []
    subjects = {name: SUBJECTS[name].first_block() if choice.first_block else SUBJECTS[name] for name in choice.models}
    with ExitStack() as stack:
        logs = Path(stack.enter_context(TemporaryDirectory()))
        sides = [stack.enter_context(Side(name, choice.threads, logs)) for name in SIDES]
        for name, subject in subjects.items():
            if missing := subject.missing():
                skipped.append(f"{name}, {missing}")
                say(f"skipped: {skipped[-1]}")
                continue
            folder = Path(stack.enter_context(TemporaryDirectory()))
            for case in compare(name, subject, sides, choice.rounds, folder):
                rows += case
                say(f"{name}  {case[0].method}  {case[0].pattern}")
    bench = PeerBench(
        command=shlex.join(["python", "-m", "bench.peers", *sys.argv[1:]]),
        date=started.isoformat(timespec="seconds"),
        machine=machine(),
        versions={side.name: side.versions for side in sides},
        threads=choice.threads,
        rounds=choice.rounds,
        load=(load, os.getloadavg()[0]),
        skipped=tuple(skipped),
        about={name: subjects[name].about for name in dict.fromkeys(row.model for row in rows)},
        rows=tuple(rows),
    )
    print(write(bench, choice.results, "peers-first-block" if choice.first_block else "peers"))


def parse(arguments: list[str]) -> argparse.Namespace:
    about = [f"  {name}  {subject.about}" for name, subject in SUBJECTS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description=f"{__doc__}\nmodels:\n" + "\n".join(about),
        epilog="Writes <date>-peers.json with every raw time, and peers.md (with --first-block, "
        "<date>-peers-first-block.json and peers-first-block.md); prints the latter.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), help="which to prune (both)")
    parser.add_argument("--first-block", action="store_true", help="cut the models there: do the sides keep the same?")
    parser.add_argument("--rounds", type=at_least(2), default=3, help="measurements of each side (3)")
    threads = torch.get_num_threads()
    parser.add_argument("--threads", type=at_least(1), default=threads, help=f"of torch ({threads} on this machine)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to (bench/results)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
