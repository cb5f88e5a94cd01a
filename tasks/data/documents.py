"""What every source gives: documents, and the hash by which rows and handles name them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Documents:
    """The texts of a source, in order; `hash` is their `hash_texts`."""

    texts: tuple[str, ...]
    source: str
    hash: str


def hash_texts(texts: Sequence[str]) -> str:
    """SHA-256 over the texts, each preceded by its length, so that moving a boundary changes the hash."""
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode()
        digest.update(len(content).to_bytes(8, "big"))
        digest.update(content)
    return digest.hexdigest()


def count_bytes(texts: Sequence[str]) -> int:
    """The UTF-8 bytes of all texts together."""
    return sum(len(text.encode()) for text in texts)
