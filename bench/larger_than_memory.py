"""`python -m bench.larger_than_memory`: a model of 3.3 GB pruned, packed and evaluated by a process that gets 1.5 GB.

The stages run as they do in a flow, for every method and what can be done beside it, in a control group whose limit the
kernel enforces: a process that needs more is killed. One pruning is then killed on purpose at half of its blocks and
started again: it must end with the same bytes. Needs Linux, and the right to make a control group (root).
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bench.__main__ import RESULTS, at_least, say
from bench.larger_than_memory_table import LargeBench, Measured, Resumed, write
from bench.larger_than_memory_worker import DENSE, RECIPES, WINDOW, make_checkpoint
from tasks.prune.journal import MARK
from tasks.record.provenance import machine, versions

ROOT = Path(__file__).parents[1]
GROUPS = (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max"))  # versions 1 and 2


class OutOfTime(Exception):  # noqa: N818
    """The whole run has taken as long as it may."""


def main() -> None:
    choice = parse(sys.argv[1:])
    ends_at = time.monotonic() + 60 * choice.minutes
    with TemporaryDirectory() as temporary, limited(choice.limit_bytes) as group:
        place = choice.folder or Path(temporary)
        model = place / f"model-{choice.blocks}-{choice.width}"
        bench = LargeBench(
            command=shlex.join(["python", "-m", "bench.larger_than_memory", *sys.argv[1:]]),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=machine(),
            versions=versions(),
            threads=torch.get_num_threads(),
            limit_bytes=choice.limit_bytes,
            model_bytes=make_checkpoint(model, choice.blocks, choice.width),
            blocks=choice.blocks,
            width=choice.width,
            calibration_tokens=choice.windows * WINDOW,
            evaluation_tokens=choice.evaluation_windows * WINDOW,
        )
        job = {"model": str(model), "windows": choice.windows, "evaluation_windows": choice.evaluation_windows}
        try:
            for method in (DENSE, *choice.methods):
                found = run(job | {"method": method}, place, group, ends_at)
                bench = replace(bench, measured=(*bench.measured, *found))
                text = write(bench, choice.results, choice.name)
                say(f"{method}: " + ", ".join(f"{row.stage} {row.seconds:.0f} s" for row in found))
            if choice.kill in choice.methods:
                resumed = kill_and_resume(job | {"method": choice.kill, "only": "prune"}, bench, place, group, ends_at)
                text = write(replace(bench, resumed=resumed), choice.results, choice.name)
        except OutOfTime:
            text = write(replace(bench, ended_early=True), choice.results, choice.name)
    print(text)


def run(job: dict, place: Path, group: Path, ends_at: float) -> list[Measured]:
    """The stages of one method, in an artifacts folder that is empty before and removed after."""
    forget(Path(job["model"]))
    with TemporaryDirectory(dir=place) as artifacts, child(job, Path(artifacts), group) as process:
        return results(process, job, ends_at)


def kill_and_resume(job: dict, bench: LargeBench, place: Path, group: Path, ends_at: float) -> Resumed | None:
    """Its pruning, killed once half of the blocks are in its journal, and started again."""
    with TemporaryDirectory(dir=place) as artifacts:
        done = 0
        with child(job, Path(artifacts), group) as process:
            while done < bench.blocks // 2:
                marks = list(Path(artifacts).glob(f"store/.unfinished/*/{MARK}"))
                done = len(json.loads(marks[0].read_text())) if marks else 0
                if process.poll() is not None:
                    say(f"{job['method']}: it has ended before there was a mark from which to go on")
                    return None
                if time.monotonic() > ends_at:
                    raise OutOfTime
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
        with child(job, Path(artifacts), group) as process:
            (again,) = results(process, job, ends_at)
    (before,) = (row for row in bench.measured if (row.method, row.stage) == (again.method, again.stage))
    return Resumed(method=job["method"], done=done, seconds=again.seconds, same_bytes=again.hash == before.hash)


@contextmanager
def child(job: dict, artifacts: Path, group: Path) -> Iterator[subprocess.Popen]:
    """The worker, in the control group; it is gone afterwards, whatever happens."""
    command = [sys.executable, "-m", "bench.larger_than_memory_worker", json.dumps(job)]
    enter = ["sh", "-c", f'echo $$ > {group / "cgroup.procs"} && exec "$@"', "sh"]
    environment = os.environ | {"ESPALIER_ARTIFACTS": str(artifacts)}
    with subprocess.Popen(enter + command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def results(process: subprocess.Popen, job: dict, ends_at: float) -> list[Measured]:
    """What the worker prints, a line a stage."""
    try:
        printed, _ = process.communicate(timeout=max(0.0, ends_at - time.monotonic()))
    except subprocess.TimeoutExpired as late:
        raise OutOfTime from late
    if process.returncode != 0:
        raise RuntimeError(f"{job['method']}: ended with {process.returncode}; -9 is the kernel's answer to the limit")
    return [Measured(**json.loads(line)) for line in printed.splitlines()]


def forget(folder: Path) -> None:
    """Drop the files of `folder` from the page cache, so that who reads them next has them within its limit."""
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def limited(limit_bytes: int) -> Iterator[Path]:
    """A control group whose processes together get so many bytes, page cache included."""
    root, limit = next(group for group in GROUPS if Path(group[0], "cgroup.procs").is_file())
    group = Path(root, f"espalier-{os.getpid()}")
    group.mkdir()
    try:
        (group / limit).write_text(str(limit_bytes))
        yield group
    finally:
        group.rmdir()


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.larger_than_memory",
        description=__doc__,
        epilog="Writes <date>-<name>.json and <name>.md, anew after each method; prints the latter.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, help="for the checkpoint, which is kept (a temporary one)")
    parser.add_argument("--blocks", type=at_least(2), default=64, help="of the model (64)")
    parser.add_argument("--width", type=at_least(64), default=1024, help="of the model (1024)")
    parser.add_argument("--limit-bytes", type=at_least(1), default=1_500_000_000, help="of the process (1500000000)")
    parser.add_argument("--windows", type=at_least(1), default=4, help=f"of calibration, {WINDOW} tokens each (4)")
    parser.add_argument("--evaluation-windows", type=at_least(1), default=16, help=f"of {WINDOW} tokens each (16)")
    parser.add_argument("--methods", nargs="+", choices=RECIPES, default=list(RECIPES), help="all by default")
    parser.add_argument("--kill", choices=RECIPES, default="sparsegpt", help="the pruning to kill at half (sparsegpt)")
    parser.add_argument("--minutes", type=at_least(1), default=60, help="after which the rest is left out (60)")
    parser.add_argument("--name", default="larger-than-memory", help="of what is written (larger-than-memory)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to (bench/results)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
