"""Which texts are nearly the same, though written with another case, punctuation, spacing or a few other words.

Two normalised texts are alike where their first `START` words are equal, or where their sets of shingles, the runs of
`SHINGLE` characters [Broder 1997], have a Jaccard similarity of at least `ALIKE`. Only pairs that share enough of their
rarest shingles are compared, which misses none: so similar sets do [Wang, Li, Feng 2012, prefixes of several elements].
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
from scipy.sparse import csr_array

START = 32  # words; fewer than these are compared whole
SHINGLE = 5  # characters
ALIKE = Fraction(3, 4)
FEW = 16  # of the shingles that similar texts share, every so manieth must be found among the rarest
AT_ONCE = 256  # texts that are held against all others; bounds the memory
WORD = re.compile(r"[^\W_]+")
POWERS = np.array([pow(0x9E3779B97F4A7C15, power, 2**64) for power in range(1, SHINGLE + 1)], dtype=np.uint64)


def normalise(text: str) -> str:
    """The words of a text in lower case with one space between them; a text without any stays as it is."""
    return " ".join(WORD.findall(unicodedata.normalize("NFKC", text).casefold())) or text.strip()


def near_duplicates(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of indices of texts that are alike: enough of them that every two which are alike are connected."""
    first: dict[str, int] = {}
    starts: dict[str, int] = {}
    for index, text in enumerate(map(normalise, texts)):
        if text in first:
            yield first[text], index
            continue
        first[text] = index
        start = " ".join(text.split(" ", START)[:START])
        if start in starts:
            yield starts[start], index
        starts.setdefault(start, index)
    different = list(first.values())
    for one, other in _similar([_shingles(text) for text in first]):
        yield different[one], different[other]


def _similar(sets: Sequence[np.ndarray]) -> Iterator[tuple[int, int]]:
    """The pairs of sets whose Jaccard similarity is at least ALIKE."""
    if not sets:
        return
    sizes = np.array([len(each) for each in sets])
    common = -(-ALIKE.numerator * sizes // ALIKE.denominator)  # at least so many shingles does a similar set share,
    shared = 1 + common // FEW  # and so many of the first size - common + shared
    owner = np.repeat(np.arange(len(sets)), sizes)
    _, shingle, uses = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
    rarest_first = np.lexsort((shingle, uses[shingle], owner))
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    prefix = rarest_first[rank < np.repeat(sizes - common + shared, sizes)]
    whole, rare = (_incidence(owner[some], shingle[some], len(sets), len(uses)) for some in (rarest_first, prefix))
    for start in range(0, len(sets), AT_ONCE):
        meeting = (rare[start : start + AT_ONCE] @ rare.T).tocoo()
        left, right = meeting.row + start, meeting.col
        likely = (left < right) & (meeting.data >= np.minimum(shared[left], shared[right]))
        left, right = left[likely], right[likely]
        both = (whole[left] * whole[right]).sum(axis=1)
        alike = both * ALIKE.denominator >= (sizes[left] + sizes[right] - both) * ALIKE.numerator
        yield from zip(left[alike].tolist(), right[alike].tolist(), strict=True)


def _incidence(row: np.ndarray, column: np.ndarray, rows: int, columns: int) -> csr_array:
    return csr_array((np.ones(len(row), dtype=np.int32), (row, column)), shape=(rows, columns))


def _shingles(text: str) -> np.ndarray:
    """The set of a text's shingles, each as a hash of 64 bits; a text that is shorter than one is one."""
    points = np.frombuffer(text.ljust(SHINGLE).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    return np.unique(np.lib.stride_tricks.sliding_window_view(points, SHINGLE) @ POWERS)
