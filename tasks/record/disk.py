"""Two promises of the file system on which the store rests: a lock that dies with its holder, and bytes that stay.

`flock` on a folder needs no file of its own and no process id (ids are reused, and differ between containers that share
a disk): the kernel releases it when the holder ends, however it ends. `fsync` of a file makes its bytes durable; of a
folder, the names in it. Beside them, who may read what was written.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """Hold the folder's lock; without `wait`, raise BlockingIOError if another process or thread holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make every file and folder from `folder` down durable, contents before the folders that name them."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(place, name))
        sync(Path(place))


def sync(path: Path) -> None:
    """Make one file's bytes, or one folder's names, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def permit_alike(folder: Path, model: Path) -> None:
    """Give every file below `folder` the permissions of the file `model`: safetensors writes for the owner alone."""
    mode = stat.S_IMODE(model.stat().st_mode)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
