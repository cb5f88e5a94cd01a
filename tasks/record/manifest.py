"""The hash of a folder: the SHA-256 of its manifest, which has one line a file in the format of sha256sum.

Names as well as bytes count; times, permissions and empty folders do not. A stored folder carries its manifest in the
file SHA256SUMS, so that `sha256sum -c SHA256SUMS` checks it without this project and a damaged file can be named.
"""

import hashlib
from pathlib import Path

MANIFEST = "SHA256SUMS"


def hash_folder(folder: Path) -> str:
    """SHA-256 (hex) of the folder's manifest, computed from the files as they are now."""
    return hash_text(list_files(folder))


def list_files(folder: Path) -> str:
    """The manifest: `<sha256>  <name relative to the folder>` for every file in or below it, sorted by name."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    files.pop(MANIFEST, None)
    return "".join(f"{_hash_file(files[name])}  {name}\n" for name in sorted(files))


def read_manifest(manifest: str) -> dict[str, str]:
    """Name -> SHA-256 of every file of a manifest."""
    return {line[66:]: line[:64] for line in manifest.split("\n") if line}


def hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def check_plain(folder: Path) -> None:
    """Raise ValueError for a file that a manifest cannot describe: a link, a device, a name with a line break."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()) or set(path.name) & {"\n", "\\"}:
            raise ValueError(f"{path}: only plain files with plain names can be stored")
    if (folder / MANIFEST).exists():
        raise ValueError(f"{folder / MANIFEST}: this name belongs to the manifest")


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
