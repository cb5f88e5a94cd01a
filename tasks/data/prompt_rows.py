"""From the rows of a file, and from documents, to prompts and the text that really follows each."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tasks.data.files import string_of

COLUMNS = (  # of the prompt and of its reference: the first of these that a file has
    ("prompt", "reference"),
    ("prompt", "canonical_solution"),  # humaneval
    ("prompt", "answer"),
    ("question", "answer"),  # gsm8k
    ("text", "code"),  # mbpp
    ("instruction", "response"),  # dolly
    ("instruction", "output"),
    ("prompt",),  # divided in two
    ("text",),  # a document: cut into pieces, each divided in two
)
CONTEXT = "context"  # what an instruction is about, after a blank line; it may be empty or absent
LONGEST, SHORTEST = 800, 200  # characters of a piece: with its reference within 512 tokens of the usual tokenizers
PIECE = re.compile(rf"\S[\s\S]{{0,{LONGEST - 1}}}(?!\S)|\S+")  # whole words
LEAST, MOST = 0.1, 0.75  # share of a text that becomes the prompt


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A prompt and what follows it; `content`, by which it is recognised, is the text before it was divided."""

    text: str
    reference: str
    content: str
    place: str  # a file, or a registered source
    row: int  # of that, counted from 0


def drafts_of_rows(path: Path, rows: Iterable[Any], start: int) -> list[Draft]:
    """The prompts of a file whose first row has the number `start`.

    ValueError, in one line, where there is no row, or where a row, named by its number, has none of the columns, no
    string in one of them, or nothing in it.
    """
    every = list(rows)
    if not every:
        raise ValueError(f"source: {path} holds no prompt: it has no row {start}, valid are rows with {_valid()}")
    prompt, *reference = _columns(path, start, every[0])
    if reference:
        return [_paired(path, number, row, prompt, *reference) for number, row in enumerate(every, start)]
    texts = [_filled(path, number, row, prompt) for number, row in enumerate(every, start)]
    if prompt == "text":
        return drafts_of_documents(str(path), texts, start)
    return [_divided(str(path), number, text) for number, text in enumerate(texts, start)]


def drafts_of_documents(place: str, texts: Sequence[str], start: int = 0) -> list[Draft]:
    """First the beginnings of all documents, then what comes next in each, and so on; an empty document has none.

    ValueError, with its number, for a document of a single word.
    """
    cut = [[_divided(place, number, piece) for piece in _pieces(text)] for number, text in enumerate(texts, start)]
    return [draft for next_of_each in zip_longest(*cut) for draft in next_of_each if draft]


def _columns(path: Path, number: int, row: Any) -> tuple[str, ...]:
    names = list(row) if isinstance(row, dict) else []
    for columns in COLUMNS:
        if {*columns} <= {*names}:
            return columns
    given = f"columns {', '.join(map(repr, names))}" if names else "no columns"
    raise ValueError(f"source: row {number} of {path} has {given}, valid are {_valid()}")


def _valid() -> str:
    return ", ".join(" and ".join(columns) for columns in COLUMNS[:-1]) + f" or {COLUMNS[-1][0]}"


def _filled(path: Path, number: int, row: Any, column: str) -> str:
    text = string_of(path, number, row, column)
    if not text.strip():
        raise ValueError(f"source: row {number} of {path} has nothing under {column!r}, valid is a text")
    return text


def _paired(path: Path, number: int, row: dict[str, Any], prompt: str, reference: str) -> Draft:
    text = _filled(path, number, row, prompt)
    if prompt == "instruction" and row.get(CONTEXT):
        text = f"{text}\n\n{string_of(path, number, row, CONTEXT)}"
    answer = _filled(path, number, row, reference)
    return Draft(text=text, reference=answer, content=text, place=str(path), row=number)


def _pieces(text: str) -> list[str]:
    """At most LONGEST characters each; after the first, none of a single word or shorter than SHORTEST."""
    pieces = [piece.strip() for piece in PIECE.findall(text)]
    return pieces[:1] + [piece for piece in pieces[1:] if len(piece) >= SHORTEST and len(piece.split()) > 1]


def _divided(place: str, number: int, text: str) -> Draft:
    """A text in two at white space, with which the second begins: together they read as the text does.

    How much of it is the prompt, from LEAST to MOST, is drawn by the text itself, so that prompts differ in length.
    """
    text = text.strip()
    gaps = [gap.start() for gap in re.finditer(r"\s+", text)]
    if not gaps:
        raise ValueError(f"source: row {number} of {place} is a single word, valid are two or more")
    draw = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32
    wanted = len(text) * (LEAST + (MOST - LEAST) * draw)
    cut = min(gaps, key=lambda gap: abs(gap - wanted))
    return Draft(text=text[:cut], reference=text[cut:], content=text, place=place, row=number)
