"""The home of everything a run leaves: one folder, in which finished content is stored under its own hash.

    store/<kind>/<hash>/     finished content, never written to again
    store/.writing/<random>/ a draft, locked by its writer: a draft without a lock is a dead writer's, and is swept away

A draft becomes an artifact by one rename, after all its bytes have reached the disk. A writer killed at any moment
leaves the artifact whole or not there at all.
"""

import dataclasses
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tasks.record.disk import locked, permit_alike, sync, sync_tree
from tasks.record.manifest import MANIFEST, check_plain, hash_folder, hash_text, list_files, read_manifest

__all__ = [
    "MANIFEST",
    "Altered",
    "Damaged",
    "Draft",
    "Handle",
    "Missing",
    "Stored",
    "check_writable",
    "draft_folder",
    "handles_in",
    "hash_folder",
    "locate",
    "root",
    "store",
    "verify",
    "write_file",
]


class Damaged(ValueError):  # noqa: N818
    """The store no longer holds what a handle names; the message says which file."""


class Missing(Damaged):
    """A file of the content, or all of it, is not there."""


class Altered(Damaged):
    """The content is there with other bytes."""


@runtime_checkable
class Handle(Protocol):
    """Anything that names a folder by its content: Checkpoint, Tokens, Stored."""

    @property
    def hash(self) -> str: ...

    @property
    def folder(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A finished artifact; `folder` is relative to the artifacts folder, `size_bytes` counts its files."""

    kind: str
    hash: str
    folder: str
    size_bytes: int


class Draft:
    """A folder being written: fill `path` inside the `with`; `stored` is the handle after it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stored: Stored | None = None

    @property
    def stored(self) -> Stored:
        if self._stored is None:
            raise RuntimeError(f"{self.path} is not stored yet: read `stored` after the with block")
        return self._stored


def root() -> Path:
    """The artifacts folder: $ESPALIER_ARTIFACTS, or ./artifacts of the working directory. Asked anew at every call."""
    return Path(os.environ.get("ESPALIER_ARTIFACTS") or "artifacts").absolute()


def locate(folder: str) -> Path:
    """The place of a handle's folder: an absolute one as it is, a relative one under the artifacts folder.

    Raises Damaged for a relative one that leads out of it.
    """
    if not Path(folder).is_absolute() and ".." in Path(folder).parts:
        raise Damaged(f"{folder} leads out of {root()}, valid is a place in it")
    return root() / folder


def check_writable(min_free_bytes: int = 0) -> None:
    """Raise ValueError, in one line, if the artifacts folder cannot be written or lacks space. Call before any work."""
    try:
        with draft_folder() as folder:
            (folder / "probe").touch()
    except OSError as error:
        raise ValueError(
            f"artifacts: cannot write to {root()} ({error.strerror}); "
            "set ESPALIER_ARTIFACTS to a folder that can be written"
        ) from error
    free_bytes = shutil.disk_usage(root()).free
    if free_bytes < min_free_bytes:
        raise ValueError(
            f"artifacts: {free_bytes / 1e9:.2f} GB free at {root()}, {min_free_bytes / 1e9:.2f} GB needed; "
            "free some space or set ESPALIER_ARTIFACTS to another disk"
        )


@contextmanager
def store(kind: str) -> Iterator[Draft]:
    """Store the folder that the body of the `with` fills, under the hash of its content:

        with store("tokens") as draft:
            save_file(tensors, draft.path / "tokens.safetensors")
        return draft.stored

    If the body raises, nothing is stored. Content that is there already and whole is kept; a damaged one is replaced.
    All files get the permissions that a new file gets here, whoever wrote them.
    """
    _sweep()
    with draft_folder() as folder:
        draft = Draft(folder)
        yield draft
        check_plain(folder)
        manifest = list_files(folder)
        if not manifest:
            raise ValueError(f"{kind}: nothing was written to {folder}")
        content_hash = hash_text(manifest)
        size_bytes = sum((folder / name).stat().st_size for name in read_manifest(manifest))
        (folder / MANIFEST).write_text(manifest, encoding="utf-8")
        permit_alike(folder, folder / MANIFEST)
        sync_tree(folder)
        stored = Stored(kind=kind, hash=content_hash, folder=f"store/{kind}/{content_hash}", size_bytes=size_bytes)
        _settle(folder, stored)
        draft._stored = stored


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: aside, synced, then renamed over `path`."""
    with draft_folder() as folder:
        aside = folder / path.name
        aside.write_bytes(data)
        sync_tree(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(aside, path)
        sync(path.parent)


def verify(handle: Handle) -> None:
    """Read a stored folder again; raise Missing or Altered, naming the file, unless its content has the handle's hash.

    For what `store` made. The hash of a model that a user brought is tasks.model.load.fingerprint.
    """
    folder = locate(handle.folder)
    if not folder.is_dir():
        raise Missing(f"{handle.folder} is missing from {root()}")
    for path in folder.rglob("*"):
        if path.is_symlink():  # what it leads to may change, and is not ours
            raise Altered(f"{handle.folder}/{path.relative_to(folder)} is a link, valid is the file that was stored")
    found = list_files(folder)
    if hash_text(found) == handle.hash:
        return
    manifest = folder / MANIFEST
    expected = manifest.read_text(encoding="utf-8", errors="replace") if manifest.is_file() else ""
    if hash_text(expected) != handle.hash:  # the manifest is gone or altered too: it can name no file
        raise Altered(f"{handle.folder} no longer has the content that its hash names")
    found_files, expected_files = read_manifest(found), read_manifest(expected)
    for name, digest in expected_files.items():
        if name not in found_files:
            raise Missing(f"{handle.folder}/{name} is missing")
        if found_files[name] != digest:
            raise Altered(f"{handle.folder}/{name} was altered")
    stranger = min(found_files.keys() - expected_files.keys())
    raise Altered(f"{handle.folder}/{stranger} does not belong there")


def handles_in(value: Any) -> Iterator[Handle]:
    """The handles of stored content inside a stage's result, however its lists, dicts and dataclasses are nested."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from handles_in(item)
    elif dataclasses.is_dataclass(value):
        if isinstance(value, Handle) and not Path(value.folder).is_absolute():
            yield value
        yield from handles_in([getattr(value, field.name) for field in dataclasses.fields(value)])


def _settle(folder: Path, stored: Stored) -> None:
    """Rename a synced draft into its place, unless the same content stands there whole."""
    target = locate(stored.folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.parent):  # two writers of the same content take turns
        if target.exists():
            if hash_folder(target) == stored.hash:
                return
            with draft_folder() as damaged:  # removed at the end of this block
                os.rename(target, damaged / "content")
        os.rename(folder, target)
        sync(target.parent)


@contextmanager
def draft_folder() -> Iterator[Path]:
    """A new empty folder in store/.writing, locked while in use, removed afterwards unless it was renamed away."""
    parent = root() / "store" / ".writing"
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / secrets.token_hex(8)
    with ExitStack() as held:
        with locked(parent):  # no sweep comes between the folder and its lock
            folder.mkdir()
            held.enter_context(locked(folder))
        try:
            yield folder
        finally:
            if folder.exists():
                shutil.rmtree(folder)


def _sweep() -> None:
    """Remove the drafts of writers that are gone: the kernel released their locks when they died."""
    parent = root() / "store" / ".writing"
    parent.mkdir(parents=True, exist_ok=True)
    with locked(parent):
        for folder in parent.iterdir():
            if folder.is_symlink() or not folder.is_dir():  # no draft: what a file system or a file manager leaves
                continue
            try:
                with locked(folder, wait=False):
                    shutil.rmtree(folder)
            except (BlockingIOError, FileNotFoundError):  # its writer is alive, or has finished at this very moment
                continue
