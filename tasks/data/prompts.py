"""Prompts with the text that really follows each, and their split into two parts that share no content."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tasks.data.near_duplicates import near_duplicates, normalise
from tasks.data.prompt_rows import Draft, drafts_of_documents, drafts_of_rows
from tasks.data.sources import Source, check_source, identity, read, rows_of

ENDINGS = (".csv", ".jsonl", ".parquet")
ROLE = "evaluation"  # the part of a registered source that is read: profiles are made with another


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a model is asked, and the `reference` that really follows it.

    `source`: the file's name without its ending, or a registered name. `group`: equal for prompts of the same content;
    where none is given, for those that differ in case, punctuation and white space alone.
    """

    text: str
    reference: str
    source: str
    group: str = ""

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", _group_of(self.text))

    @property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the text and its reference."""
        return _digits(f"{self.text}\x00{self.reference}")


def read_prompts(source: str, *, limit: int | None = None) -> list[Prompt]:
    """The prompts of sources joined by "+", one of each in turn; each once, and at most `limit` of them.

    A source is a file (.csv, .jsonl, .parquet; `[first:end]` counts its rows) with columns that
    `tasks.data.prompt_rows` knows, or a registered name such as `docs`, whose documents are cut into pieces: the start
    of a piece is the prompt. Prompts that are nearly the same, or that come from one document, are of one group.

    ValueError, in one line, for what is not understood, not there, empty, or has no such columns; ConnectionError as
    `tasks.data.sources.read`.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit: {limit} given, valid is 1 or more")
    with _complaints():
        parts = [check_source(part, ROLE, ENDINGS) for part in source.split("+")]
        of_each = [_drafts(part, limit) for part in parts]
    drafts: dict[tuple[str, str], Draft] = {}
    for next_of_each in zip_longest(*of_each):
        for draft in filter(None, next_of_each):
            drafts.setdefault((draft.text, draft.reference), draft)
    return _grouped(list(drafts.values())[:limit])


def identify_prompts(source: str) -> str:
    """What the prompts of a source depend on, cheaply: for a cache key. Errors as `read_prompts`."""
    with _complaints():
        parts = [check_source(part, ROLE, ENDINGS) for part in source.split("+")]
        return "+".join(identity(str(part), ROLE, ENDINGS) for part in parts)


def split_prompts(
    prompts: Sequence[Prompt], test_share: float = 0.2, seed: int = 0
) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts to train on and prompts to test on, the same whatever the order they come in; no group is in both.

    Groups go to the test in an order that the seed draws, each where what is left of the share has room for it.
    ValueError for a share that is none, and for prompts of fewer than two groups.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"test_share: {test_share} given, valid is above 0 and below 1")
    groups: dict[str, list[Prompt]] = {}
    for prompt in sorted(prompts, key=lambda prompt: (prompt.id, prompt.source)):
        groups.setdefault(prompt.group, []).append(prompt)
    if len(groups) < 2:
        raise ValueError(f"prompts: {len(prompts)} of the same content given, valid are two contents or more")
    room = max(test_share * len(prompts), min(map(len, groups.values())))
    train: list[Prompt] = []
    test: list[Prompt] = []
    for group in sorted(groups, key=lambda group: _digits(f"{seed}:{group}")):
        fits = len(test) + len(groups[group]) <= room
        (test if fits else train).extend(groups[group])
    return train, test


def _drafts(source: Source, limit: int | None) -> list[Draft]:
    """The prompts of one source; no more rows of a file are read than prompts are wanted."""
    if not source.is_file:
        return drafts_of_documents(str(source), read(str(source), ROLE).texts)
    if limit is not None:
        end = source.start + limit
        source = replace(source, stop=end if source.stop is None else min(end, source.stop))
    return drafts_of_rows(Path(source.name), rows_of(source), source.start)


def _grouped(drafts: Sequence[Draft]) -> list[Prompt]:
    """Prompts whose group is the least of those of all that they are connected with."""
    first: dict[tuple[str, int], int] = {}
    of_a_row = [(first.setdefault((draft.place, draft.row), index), index) for index, draft in enumerate(drafts)]
    one, other = np.array([*of_a_row, *near_duplicates([draft.content for draft in drafts])]).T
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(drafts), len(drafts)))
    labels = connected_components(graph, directed=False)[1].tolist()
    groups: dict[int, str] = {}
    for label, draft in zip(labels, drafts, strict=True):
        own = _group_of(draft.content)
        groups[label] = min(own, groups.get(label, own))
    return [
        Prompt(text=draft.text, reference=draft.reference, source=Path(draft.place).stem, group=groups[label])
        for label, draft in zip(labels, drafts, strict=True)
    ]


def _group_of(text: str) -> str:
    return _digits(normalise(text))


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def _complaints() -> Iterator[None]:
    """What is wrong with a source is wrong with the prompts that it was to give."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"prompts: {str(error).removeprefix('source: ')}") from error
