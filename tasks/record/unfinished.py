"""Work that may be stopped and gone on with: store/.unfinished/<key>/, of one process at a time, until it is done."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.record.disk import locked
from tasks.record.home import root

ABANDONED_S = 14 * 24 * 3600  # after which nobody is expected to come back


@contextmanager
def workplace(key: str) -> Iterator[Path]:
    """The folder of the work named `key`, as whoever was stopped has left it. Removed when the body has ended well.

    Another process that wants the same waits. Work that nobody has touched for two weeks is removed.
    """
    parent = root() / "store" / ".unfinished"
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    folder = parent / key
    while True:
        folder.mkdir(exist_ok=True)
        seen = _inode(folder)
        with locked(folder):
            if seen is None or _inode(folder) != seen:  # whoever held the lock has finished, and removed it
                continue
            os.utime(folder)
            yield folder
            shutil.rmtree(folder)
            return


def _inode(folder: Path) -> int | None:
    try:
        return folder.stat().st_ino
    except FileNotFoundError:
        return None


def _sweep(parent: Path) -> None:
    for folder in parent.iterdir():
        if folder.is_symlink() or not folder.is_dir():  # no work: what a file system or a file manager leaves
            continue
        try:
            if time.time() - folder.stat().st_mtime > ABANDONED_S:
                with locked(folder, wait=False):
                    shutil.rmtree(folder)
        except (BlockingIOError, FileNotFoundError):  # someone has come back to it, or removed it, at this very moment
            continue
