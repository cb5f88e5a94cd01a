"""How published perplexities read their text: the protocols of GPTQ, SparseGPT and Wanda, by the name of the text.

All three make one text of a set's rows, encode it at once, so that the tokenizer's special tokens stand at its
beginning alone, score windows that do not overlap and drop what remains (arXiv:2210.17323, arXiv:2301.00774,
arXiv:2306.11695). Where their code differs, this is SparseGPT's and Wanda's; of C4 it is GPTQ's `c4_new`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The rows of a set as the one text that is scored.

    join: what stands between two rows.
    rows: so many of them, from the first; None: all.
    windows: so many are scored, from the first; None: all.
    as_row: what a line of a .txt file was as a row of the set; it leaves the set's own rows as they are.
    """

    join: str
    rows: int | None = None
    windows: int | None = None
    as_row: Callable[[str], str]

    def text_of(self, rows: Iterable[str]) -> str:
        return self.join.join(self.as_row(row) for row in islice(rows, self.rows))

    def scored(self, ids_T: Tensor, window: int) -> Tensor:
        """The text up to the last window that is scored."""
        return ids_T if self.windows is None else ids_T[: self.windows * window]


def wikitext_row(line: str) -> str:
    """A line keeps its end; one that is blank was an empty row."""
    return line if line.strip() else ""


PROTOCOLS: dict[str, Protocol] = {
    "wikitext2": Protocol(join="\n\n", as_row=wikitext_row),  # its test split
    "ptb": Protocol(join=" ", as_row=str.strip),  # its test split, a sentence a row
    "c4": Protocol(join=" ", rows=1100, windows=256, as_row=str),  # the first shard of its validation split
}
