"""Sources of text: a registered name (`docs`, `wikitext2:test`) or a file (`stories.jsonl[400:]`) becomes documents.

A file with the rows of a registered set is read as that set is: `wikitext2:wiki.test.raw.txt`.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tasks.data import docs
from tasks.data.documents import Documents, hash_texts
from tasks.data.files import csv_rows, jsonl_rows, texts_of, txt_rows
from tasks.data.protocols import PROTOCOLS, Protocol
from tasks.data.registry import SOURCES
from tasks.network import PASSING, hub_answers, is_refusal, offline
from tasks.secret import without_secrets

OFFLINE = "HF_DATASETS_OFFLINE"  # of `datasets` alone, beside the hub's own
ENDINGS = (".txt", ".jsonl", ".parquet")
SLICE = re.compile(r"\[(\d*):(\d*)\]")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A registered `name` and a `split` (None: what the role reads), or the path of a file and a slice of its rows.

    like: of a file, the registered set whose rows it holds, and as which it is read.
    """

    name: str
    split: str | None = None
    start: int = 0
    stop: int | None = None
    like: str | None = None

    @property
    def is_file(self) -> bool:
        return self.name not in SOURCES

    def overlaps(self, other: "Source") -> bool:
        """Whether both are rows of one file, and some of them the same."""
        if not (self.is_file and other.is_file) or Path(self.name).resolve() != Path(other.name).resolve():
            return False
        stops = [each.stop for each in (self, other) if each.stop is not None]
        return not stops or max(self.start, other.start) < min(stops)

    def __str__(self) -> str:
        """Reads back: `parse_source(str(source)) == source`."""
        if self.split:
            return f"{self.name}:{self.split}"
        if self.like:
            return f"{self.like}:{self.name}"
        if self.start == 0 and self.stop is None:
            return self.name
        return f"{self.name}[{self.start or ''}:{'' if self.stop is None else self.stop}]"


def parse_source(text: str, endings: Sequence[str] = ENDINGS) -> Source:
    """`docs`, `docs:train`, `stories.jsonl`, `stories.jsonl[400:]`, `ptb:ptb.test.txt`.

    ValueError, in one line, for anything else. `endings`: of the files that are valid.
    """
    place, bracket, rest = text.partition("[")
    name, colon, split = text.partition(":")
    if Path(place).suffix in endings:
        if name in PROTOCOLS:
            if bracket:
                raise ValueError(f"source: {text!r} gives a slice, but what is read of {name} is fixed; leave it out")
            return Source(name=split, like=name)
        start, stop = _parse_slice(text, bracket + rest)
        return Source(name=place, start=start, stop=stop)
    if name in SOURCES:
        splits = SOURCES[name].splits
        if colon and split not in splits:
            raise ValueError(f"source: {name} has no split {split!r}; choose one of {', '.join(splits)}")
        return Source(name=name, split=split or None)
    if "/" in place or Path(place).suffix:
        raise ValueError(f"source: {text!r} ends in none of {', '.join(endings)}")
    names = ", ".join(SOURCES)
    raise ValueError(f"source: {text!r} is unknown; choose one of {names}, or a file ({', '.join(endings)})")


def check_source(text: str, role: str, endings: Sequence[str] = ENDINGS) -> Source:
    """Everything that can be known about a source before it is read; raises what `read` would raise for it."""
    source = parse_source(text, endings)
    if source.is_file:
        if not Path(source.name).is_file():
            raise ValueError(f"source: the file {source.name} does not exist")
    elif source.name == "docs":
        docs.held_out_folders()  # every part needs the packages that are held out
    elif not _is_cached(source) and not hub_answers(OFFLINE):
        raise ValueError(_absent(source))
    return source


def check_first_row(text: str) -> None:
    """Raises ValueError where the first row of a file's slice is not there, or has no text that `read` could read."""
    source = parse_source(text)
    if source.is_file and not list(_texts_of_file(replace(source, stop=source.start + 1))):
        raise ValueError(f"source: {source} holds no text: the file has no row {source.start}")


def read(text: str, role: str) -> Documents:
    """The documents of a source; `role` chooses the split where the source names none.

    ValueError, in one line: the source is not understood, not there, or holds no text; a row has no `text`; a data set
    of the hub is not there, or neither in the local cache nor reachable (known within three seconds). ConnectionError
    where the hub answers and yet fails: the same call may succeed later.
    """
    source = check_source(text, role)
    if source.is_file:
        texts = _read_file(source, role)
    elif source.name == "docs":
        texts = docs.read(source.split or SOURCES["docs"].split_of(role))
    else:
        texts = _read_hub(source, role)
    if not any(document.strip() for document in texts):
        raise ValueError(f"source: {source} holds no text")
    return Documents(texts=tuple(texts), source=str(source), hash=hash_texts(texts))


def identity(text: str, role: str = "calibration", endings: Sequence[str] = ENDINGS) -> str:
    """What the content of a source depends on, cheaply: for a cache key.

    The hash of a file's bytes; for `docs` the versions of what its part is read from; for a set of the hub its name
    alone.
    """
    source = parse_source(text, endings)
    if source.is_file:
        with Path(source.name).open("rb") as file:
            return f"{source}@{hashlib.file_digest(file, 'sha256').hexdigest()}"
    if source.name == "docs":
        return f"{source}@{docs.installed(source.split or SOURCES['docs'].split_of(role))}"
    return str(source)


def protocol_of(text: str, role: str) -> Protocol | None:
    """How a source is scored, where it is of a set that papers score."""
    source = parse_source(text)
    return PROTOCOLS.get(source.like or source.name) if role == "evaluation" else None


def _parse_slice(text: str, rows: str) -> tuple[int, int | None]:
    if not rows:
        return 0, None
    found = SLICE.fullmatch(rows)
    if found is None:
        raise ValueError(f"source: the rows of {text!r} must read [first:], [:end] or [first:end], counted from 0")
    start, stop = (int(found[1] or 0), int(found[2]) if found[2] else None)
    if stop is not None and stop <= start:
        raise ValueError(f"source: the rows {rows} of {text!r} are none")
    return start, stop


def rows_of(source: Source) -> Iterable[Any]:
    """The rows of a .jsonl, .csv or .parquet file in its slice: a dict each, or what else a line of JSON holds."""
    path = Path(source.name)
    match path.suffix:
        case ".jsonl":
            return jsonl_rows(path, source.start, source.stop)
        case ".csv":
            return csv_rows(path, source.start, source.stop)
        case _:
            return _parquet_rows(path, source.start, source.stop)


def is_longer(text: str, characters: int) -> bool:
    """Whether the file of a source has more characters than that; of .jsonl no more rows are read than tell it."""
    total = 0
    return any((total := total + len(row)) > characters for row in _texts_of_file(parse_source(text)))


def _read_file(source: Source, role: str) -> list[str]:
    texts = _texts_of_file(source)
    return list(texts) if source.like is None else SOURCES[source.like].documents_of(texts, role)


def _texts_of_file(source: Source) -> Iterable[str]:
    """The rows of the slice, but those of a .txt as one text, unless they are a set's."""
    path = Path(source.name)
    if path.suffix == ".txt":
        lines = txt_rows(path, source.start, source.stop)
        return ["".join(lines)] if source.like is None else lines
    field = "text" if source.like is None else SOURCES[source.like].field
    return texts_of(path, rows_of(source), source.start, field)


def _parquet_rows(path: Path, start: int, stop: int | None) -> list[Any]:
    from datasets import load_dataset

    try:
        return list(islice(load_dataset("parquet", data_files=str(path), split="train", streaming=True), start, stop))
    except ValueError as error:
        raise ValueError(f"source: {path} cannot be read as Parquet: {error}") from error


def _read_hub(source: Source, role: str) -> list[str]:
    """From the local cache alone where the hub does not answer; else the client would wait for it for minutes."""
    from datasets import load_dataset
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError

    entry = SOURCES[source.name]
    split = source.split or entry.split_of(role)
    reachable = hub_answers(OFFLINE)
    try:
        with nullcontext() if reachable else offline():
            rows = load_dataset(
                entry.hub, entry.config, revision=entry.revision, split=split, streaming=entry.first is not None
            )
            return entry.documents_of(_texts(rows, entry.field), role)
    except (DatasetNotFoundError, DataFilesNotFoundError) as error:
        raise ValueError(_absent(source)) from error
    except PASSING as error:
        if not reachable or is_refusal(error):
            raise ValueError(_absent(source)) from error
        reason = without_secrets(str(error).strip().partition("\n")[0])
        raise ConnectionError(f"source: {source} ({entry.hub} on the hub): the hub failed: {reason}") from error


def _texts(rows: Iterable[dict[str, Any]], field: str) -> Iterator[str]:
    """A row's text; a conversation is the turns' texts with a blank line between them."""
    for row in rows:
        value = row[field]
        yield value if isinstance(value, str) else "\n\n".join(turn["value"] for turn in value)


def _is_cached(source: Source) -> bool:
    """A streamed set is never kept; another is, a folder for each configuration in one named after its path."""
    from datasets import config

    entry = SOURCES[source.name]
    kept = Path(config.HF_DATASETS_CACHE) / entry.hub.replace("/", "___")
    return entry.first is None and any(kept.glob(f"{entry.config or '*'}/*/*/dataset_info.json"))


def _absent(source: Source) -> str:
    where = SOURCES[source.name].hub
    return (
        f"source: {source} ({where} on the hub) is not in the local cache and cannot be fetched; "
        f"give the path of a {', '.join(ENDINGS)} file, use docs, or connect to the network"
    )
