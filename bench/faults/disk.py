"""A full disk, and what lies on it cut short, altered or removed after it was finished."""

import os
import random
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.faults.subject import end, facts, start
from bench.faults.tries import Try, judged

NEEDED = 4 << 20  # bytes that a run takes beside its databases, rounded up
ROOMY = 256 << 20


def fill_disk(of: Try) -> dict[str, Any]:
    """A file system of its own in memory, with room for a part of what the run writes; then it gets more."""
    room = random.Random(of.number).randrange(NEEDED)
    with _file_system(of.artifacts) as resize:
        resize(_size(of.artifacts) + room)
        first = end(start(of.artifacts))
        resize(ROOMY)
        return judged(of, first) | {"room_bytes": room}


def limit_files(of: Try) -> dict[str, Any]:
    """No file may grow beyond a size (RLIMIT_FSIZE), as under a quota: what is written behind it fails."""
    limit = random.Random(of.number).randrange(1 << 12, 1 << 20)
    own = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, own[1]))  # children have it too
    try:
        run = start(of.artifacts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, own)
    return judged(of, end(run)) | {"limit_bytes": limit}


def damage(of: Try) -> dict[str, Any]:
    """After a whole run: a stored file or a result is cut short, altered or removed, and the command given again."""
    whole = end(start(of.artifacts))
    if whole.code or facts(of.artifacts, whole) != of.expected:
        raise RuntimeError(f"the undisturbed run of {of.fault} came to something else: {whole.said}")
    chance = random.Random(of.number)
    files = [path for part in ("store", "results") for path in sorted((of.artifacts / part).rglob("*"))]
    file = chance.choice([path for path in files if path.is_file() and ".writing" not in path.parts])
    content = file.read_bytes()
    how = ("cut short", "altered", "removed", "emptied")[of.number % 4]
    if how == "removed":
        file.unlink()
    elif how == "altered":
        at = chance.randrange(len(content))
        file.write_bytes(content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :])
    else:
        file.write_bytes(content[: chance.randrange(len(content)) if how == "cut short" else 0])
    what = file.relative_to(of.artifacts).parts
    return judged(of, end(start(of.artifacts))) | {
        "damage": f"{how}: {what[0]}/{what[1].split('-')[0]}/{what[-1][:24]}"
    }


@contextmanager
def _file_system(place: Path) -> Iterator[Any]:
    """What is in `place`, on a file system of its own, which needs the right to mount; yields how to resize it."""
    aside = place.with_name(f"{place.name}-aside")
    shutil.move(place, aside)
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOMY}", "tmpfs", str(place)], check=True)

    def resize(size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)

    try:
        shutil.copytree(aside, place, dirs_exist_ok=True)
        shutil.rmtree(aside)
        yield resize
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _size(folder: Path) -> int:
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(-(-path.stat().st_size // page) * page for path in folder.rglob("*") if path.is_file())
