"""`python -m bench.overhead`: what the pipeline costs beside the work, in seconds and as a share.

Stages that do nothing say what a stage costs when it is computed, and when it is found again. `--command WORDS` is an
espalier command in an artifacts folder of its own, cold and then warm: what its stages did not compute, together with
what each of them costs beside its work, is the pipeline's share. A server is started for each, as a command does it.

Each start adds lines to `<results>/overhead.jsonl`; overhead.md is written from all lines, by `--table` without
measuring.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.lines import RESULTS
from bench.stored import table
from bench.texts import add_line, read_lines
from tasks.record.metrics import query
from tasks.record.provenance import machine, versions

STAGES = "bench.overhead_stages"
COMPUTED = "select count(*) as stages, sum(seconds) as seconds from stages where not cached"


def main() -> None:
    choice = parse(sys.argv[1:])
    file = choice.results / "overhead.jsonl"
    if not choice.table:
        stages = measure_stages(choice.stages)
        facts = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), "versions": versions()}
        add_line(file, facts | stages)
        for words in choice.command:
            line = measure_command(shlex.split(words), stages["computed_s"])
            add_line(file, facts | line)
            print(json.dumps(line), file=sys.stderr)
    if not file.exists():
        sys.exit(f"results: {file} is not there; leave --table out to measure")
    text = markdown(read_lines(file))
    (choice.results / "overhead.md").write_text(text, encoding="utf-8")
    print(text)


def measure_stages(count: int) -> dict[str, Any]:
    """Of `count` stages that do nothing: the seconds of one computed, of one found again, and of a server's start."""
    with TemporaryDirectory() as artifacts:
        words = [sys.executable, "-m", STAGES, str(count)]
        done = subprocess.run(words, env=apart(Path(artifacts)), stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return {"stages": count} | {name: found[name] for name in ("server_s", "computed_s", "found_s")}


def measure_command(words: Sequence[str], stage_s: float) -> dict[str, Any]:
    """An espalier command, cold and warm. `stage_s`: what a stage costs beside its work, which counts as overhead."""
    with TemporaryDirectory() as artifacts:
        environment = apart(Path(artifacts))
        cold_s = seconds_of(words, environment)
        os.environ["ESPALIER_ARTIFACTS"] = artifacts
        [computed] = query(COMPUTED)
        warm_s = seconds_of(words, environment)
    return {
        "command": shlex.join(["espalier", *words]),
        "cold_s": cold_s,
        "computed_stages": computed["stages"],
        "computed_s": computed["seconds"],
        "beside_s": cold_s - computed["seconds"] + stage_s * computed["stages"],
        "warm_s": warm_s,
    }


def apart(artifacts: Path) -> dict[str, str]:
    """The environment of a command that has artifacts and a server of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {"ESPALIER_ARTIFACTS": str(artifacts)}


def seconds_of(words: Sequence[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "flows.cli", *words], env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    """All that was measured, each with its date."""
    stages = [line for line in lines if "command" not in line]
    commands = [line for line in lines if "command" in line]
    said = [
        "# What the pipeline costs beside the work",
        "",
        "A stage is a task that Prefect runs, whose inputs and code are hashed and whose result is stored and checked.",
        "These do nothing, so that all they take is what a stage costs.",
        "",
        *table(
            ["date", "stages", "one computed", "one found again", "the server's start"],
            [
                [
                    line["date"],
                    f"{line['stages']}",
                    f"{1000 * line['computed_s']:.0f} ms",
                    f"{1000 * line['found_s']:.0f} ms",
                    f"{line['server_s']:.1f} s",
                ]
                for line in stages
            ],
        ),
        "",
        "A command in an empty artifacts folder, then once more. *Beside the work*: its seconds without those that its",
        "stages computed, and with what those stages cost beside their work.",
        "",
        *table(
            ["date", "command", "cold", "beside the work", "share", "warm"],
            [
                [
                    line["date"],
                    f"`{line['command']}`",
                    f"{line['cold_s']:.1f} s",
                    f"{line['beside_s']:.1f} s",
                    f"{100 * line['beside_s'] / line['cold_s']:.1f} %",
                    f"{line['warm_s']:.1f} s",
                ]
                for line in commands
            ],
        ),
        "",
        f"Machine: {lines[-1]['machine']}.",
        "",
    ]
    return "\n".join(said)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__)
    parser.add_argument("--stages", type=int, default=100, help="trivial ones (100)")
    parser.add_argument("--command", action="append", default=[], metavar="WORDS", help='such as "sweep --preset demo"')
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the lines (bench/results)")
    parser.add_argument("--table", action="store_true", help="measure nothing, write the table")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
