"""The built-in text: the docstrings that every installation carries, one document a module.

A document is the docstrings of one module in the order of the source, each cleaned by `inspect.cleandoc`, with one
blank line between two of them. A docstring that stands in more than one place counts once: the evaluation part has the
first claim, then calibration, then training, and within a part the first module by name; so no docstring stands on both
sides of the split. Documents of fewer than 200 characters, or with more than 5 % of non-ASCII ones, are left out.

Calibration and evaluation come from packages of pinned versions (`tasks.data.split`) and are read in a second or two;
`docs.json` holds their hashes. Training takes the rest of the standard library and of the installed packages: tens of
megabytes, a minute, and another text wherever other packages are installed.
"""

import hashlib
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tasks.data.docstrings import docstrings, strings_of_dict
from tasks.data.documents import count_bytes, hash_texts
from tasks.data.split import HELD_OUT, PARTS, part_of

MANIFEST = Path(__file__).with_name("docs.json")
SHORTEST = 200  # characters of a document
MOST_NON_ASCII = 0.05  # share of the characters
TOPICS = "pydoc_data/topics.py"  # the language reference as one dict of strings
NOT_STANDARD = ("site-packages/", "dist-packages/")  # inside the standard library's folder, but not of it


def read(part: str) -> list[str]:
    """The documents of "train", "calibration" or "evaluation"; a warning where the manifest knows them otherwise.

    ValueError for another part, and for a held-out package that is not installed.
    """
    texts = gather(part)
    expected = json.loads(MANIFEST.read_text(encoding="utf-8"))
    if part in expected["parts"] and expected["parts"][part]["sha256"] != hash_texts(texts):
        here, there = versions(), expected["versions"]
        other = [f"{name} {here[name]} for {there[name]}" for name in here if here[name] != there[name]]
        cause = f"installed here: {', '.join(other)}" if other else "an installed file was altered"
        warnings.warn(f"docs: the {part} part is not that of docs.json ({cause}); its numbers differ", stacklevel=2)
    return texts


def gather(part: str, workers: int = 1) -> list[str]:
    """The documents of a part, unchecked. `workers`: processes that parse; the small parts need one."""
    documents = ("\n\n".join(own) for own in distinct(part, workers))
    return [text for text in documents if len(text) >= SHORTEST and _is_english(text)]


def distinct(part: str, workers: int = 1) -> Iterator[list[str]]:
    """For each module of a part, the docstrings that stand in no part with a prior claim and in no module before it."""
    seen: set[str] = set()
    for prior in PARTS[PARTS.index(_known(part)) + 1 :]:
        for module in _parse(modules(prior)):
            seen.update(module)
    for module in _parse(modules(part), workers):
        own = [text for text in dict.fromkeys(module) if text not in seen]
        seen.update(own)
        yield own


def modules(part: str) -> list[Path]:
    """The files of a part, by name."""
    return _training_modules() if _known(part) == "train" else _held_out_modules(part)


def held_out_folders() -> list[Path]:
    """Where the packages are that are held out. ValueError for one that is not installed."""
    folders = []
    for package, distribution in HELD_OUT.items():
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"docs: {distribution} is not installed; install with -c constraints.txt")
        folders.append(Path(spec.submodule_search_locations[0]))
    return folders


def versions() -> dict[str, str]:
    """The installed versions of the packages that calibration and evaluation come from."""
    return {distribution: version(distribution) for distribution in HELD_OUT.values()}


def installed(part: str) -> str:
    """What the text of a part depends on, in one line.

    The versions of the packages that are held out; for training, which reads everything installed, a hash of all
    versions and of Python's.
    """
    if _known(part) != "train":
        return ",".join(f"{name}={number}" for name, number in versions().items())
    everything = sorted({(found.name, found.version) for found in distributions()})
    return f"everything={hashlib.sha256(json.dumps([sys.version, everything]).encode()).hexdigest()}"


def manifest() -> dict[str, Any]:
    """What `docs.json` should say about what is installed here."""
    parts = {}
    for part in PARTS[1:]:
        texts = gather(part)
        parts[part] = {"documents": len(texts), "bytes": count_bytes(texts), "sha256": hash_texts(texts)}
    return {"versions": versions(), "parts": parts}


def _known(part: str) -> str:
    if part not in PARTS:
        raise ValueError(f"docs: there is no part {part!r}; choose one of {', '.join(PARTS)}")
    return part


def _held_out_modules(part: str) -> list[Path]:
    found = []
    for folder in held_out_folders():
        names = sorted(path.relative_to(folder.parent).as_posix() for path in folder.rglob("*.py"))
        found += [folder.parent / name for name in names if part_of(name) == part]
    return found


def _training_modules() -> list[Path]:
    found = []
    for root in dict.fromkeys(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")):
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
        found += [root / name for name in names if part_of(name) == "train" and not name.startswith(NOT_STANDARD)]
    return found


def _parse(paths: list[Path], workers: int = 1) -> Iterable[list[str]]:
    """The docstrings of each file."""
    if workers == 1:
        return map(_read, paths)
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(_read, paths, chunksize=64))


def _read(path: Path) -> list[str]:
    return list(strings_of_dict(path) if path.as_posix().endswith(TOPICS) else docstrings(path))


def _is_english(text: str) -> bool:
    return sum(not character.isascii() for character in text) <= MOST_NON_ASCII * len(text)
