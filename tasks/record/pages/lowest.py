"""Which model has the lowest perplexity of its pattern, and among which: those that drop about as much as any of it."""

from collections.abc import Sequence

from tasks.record.pages import units
from tasks.record.pages.tables import Row

DROP_LESS = (
    "The lowest perplexity of a pattern is taken among the runs that drop what it asks for, or as much as any, to "
    "within 1.5 percentage points; runs that drop less are not compared for it."
)


def pruned_and_best(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The pruned models that have a dense one beside them, and those with the lowest perplexity of their pattern."""
    pruned = [row for row in rows if row["subject"] != "dense" and row["dense"]]
    return pruned, [row for row in pruned if row["best"]]


def comparison_told(rows: Sequence[Row]) -> str:
    """A sentence where models were not compared with others of their pattern; else nothing."""
    return DROP_LESS if any(row["subject"] != "dense" and not row["compared"] for row in rows) else ""


def lowest_told(row: Row, rows: Sequence[Row]) -> str:
    """`wanda with 20.09 at 2:4`, and where some drop less, among which of the `rows` it is the lowest."""
    told = f"{row['method']} with {units.digits(row['ppl'])} at {row['pattern']}"
    if not (less := _passed_over(row, rows)):
        return told
    compared = len(_of_its_pattern(row, rows)) - less
    share = f", about {_dropped(row)} of the weights" if _dropped(row) else ""
    others = "the other drops" if less == 1 else f"the other {less} drop"
    return f"{told}, among the {compared} runs there that drop the most{share} ({others} less)"


def lowest_tile(row: Row, rows: Sequence[Row]) -> tuple[str, str, str]:
    """Its name, the perplexity, and the method, with what it drops where others drop less."""
    drops = f", {_dropped(row)} dropped" if _passed_over(row, rows) and _dropped(row) else ""
    return f"Lowest at {row['pattern']}", units.digits(row["ppl"]), f"{row['method']}{drops}"


def _dropped(row: Row) -> str:
    """The share of the weights; nothing of a model with factors, of which zeros say only the part beside them."""
    return "" if row["largest_rank"] else units.percent(row["sparsity"])


def _passed_over(row: Row, rows: Sequence[Row]) -> int:
    """How many models of the pattern of `row` were not compared with it."""
    return sum(not other["compared"] for other in _of_its_pattern(row, rows))


def _of_its_pattern(row: Row, rows: Sequence[Row]) -> list[Row]:
    """As queries/results.sql has it: on one text, how zeros were chosen apart."""
    return [other for other in rows if other["subject"] != "dense" and _pattern_of(other) == _pattern_of(row)]


def _pattern_of(row: Row) -> tuple[str, str, int, str]:
    return row["model_hash"], row["source"], row["window"], row["pattern"].partition("@")[0]
