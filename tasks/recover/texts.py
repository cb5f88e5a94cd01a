"""The texts that a recovery is to train on, in words: `a.jsonl=2+b.jsonl=1`."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

WEIGHTED = re.compile(r"(.+)=(-?\d*\.?\d+(?:e-?\d+)?)")


@dataclass(frozen=True, kw_only=True)
class WeightedText:
    """A source (tasks.data.sources), and its share of the training beside the weights of the others."""

    source: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError(f"weight: {self.weight:g} given for {self.source}, valid is more than 0")

    def __str__(self) -> str:
        """Reads back: `parse_texts(str(text)) == (text,)`."""
        return self.source if self.weight == 1 else f"{self.source}={self.weight!r}"


def parse_texts(words: str) -> tuple[WeightedText, ...]:
    """`docs`, `a.jsonl=2+b.jsonl`; without a weight it is 1. ValueError for a weight that is not more than 0."""
    return tuple(_parse(word) for word in words.split("+"))


def check_texts(texts: Iterable[WeightedText]) -> None:
    """ValueError for what words cannot say again, a source given twice, and a weight that stands against nothing."""
    texts = tuple(texts)
    sources = [text.source for text in texts]
    for source in sources:
        if "+" in source:
            raise ValueError(f"text: {source} given, valid is a source without a +, which stands between two")
        if sources.count(source) > 1:
            raise ValueError(f"text: {source} given {sources.count(source)} times, valid is once, with a weight")
    if len(texts) == 1 and texts[0].weight != 1:
        raise ValueError(f"text: {texts[0]} given alone, so its weight says nothing; leave it out")


def _parse(word: str) -> WeightedText:
    found = WEIGHTED.fullmatch(word)
    return WeightedText(source=found[1], weight=float(found[2])) if found else WeightedText(source=word)
