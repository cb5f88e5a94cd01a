"""Two runs, or two registered versions, side by side: what went in that differs, and what was measured of both.

Values stand beside each other only where they were measured alike: perplexities on the same text in the same window,
speeds on the same machine beside the same dense model, benchmarks by the same questions. Where rows of one run have
their like in the other, block by block or linear by linear, they are compared in pairs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t as student

from tasks.record.metrics import query_named
from tasks.record.pages.results import results_of
from tasks.record.pages.tables import Row
from tasks.record.runs.lineage import Differences, Lineage, differences

SCORES = ("ppl", "nll", "bits_per_byte")  # of a text
SIZES = ("sparsity", "parameters", "size_bytes", "memory_bytes", "kv_bytes")  # of a model
PHASES = ("prefill", "decode")
SURE = 0.95
Model = tuple[str, Row, Row]  # what it is called, and its rows in the two runs


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number of both models. `of`: the text it was measured on, or which of several models it is of; "" of one alone.

    `ratio` is b / a, where both were measured alike; `low` and `high` hold it with 95 % or more, where it has a spread.
    """

    name: str
    of: str
    dense: float | None
    a: float | None
    b: float | None
    ratio: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Score:
    """What both models scored in a benchmark; `stderr` of the difference b - a takes the two for independent."""

    name: str
    questions: int
    chance: float | None
    a: float
    b: float
    difference: float
    stderr: float | None


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """What was measured of the same parts in both runs; `ratio`: the geometric mean of b / a over the `count` parts.

    `low` and `high`: its 95 % interval, parts taken as independent draws; None for a single pair.
    """

    what: str
    count: int
    lower: int  # parts in which b is lower
    ratio: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What differs and what was measured; `apart`: why some numbers are not held against each other."""

    a: Lineage
    b: Lineage
    differs: Differences
    measures: Sequence[Measure]
    scores: Sequence[Score]
    pairs: Sequence[Pairs]
    apart: Sequence[str]


def compare(a: Lineage, b: Lineage) -> Comparison:
    """Everything that the stored rows say of both."""
    differs = differences(a, b)
    one_machine = "machine" not in differs and a.model_hash == b.model_hash
    of_a, of_b = (
        [row for row in results_of(each.run) if row["subject"] != "dense" and row["ppl"] is not None] for each in (a, b)
    )
    models, apart = _models(of_a, of_b), []
    if a.model_hash != b.model_hash:
        apart.append("they began with two dense models")
    if of_a and of_b and not models:
        made = " and ".join(", ".join(sorted({row["subject"] for row in rows})) for rows in (of_a, of_b))
        apart.append(f"they made models of other names ({made}), so none are compared")
    elif {_text_of(row) for row in of_a}.isdisjoint(_text_of(row) for row in of_b) and of_a and of_b:
        apart.append("no text was scored by both, so no perplexity is compared")
    if not one_machine and any(row["decode_ratio"] is not None for row in (*of_a, *of_b)):
        apart.append("they were not timed on one machine beside one dense model, so no speed is compared")
    return Comparison(
        a=a,
        b=b,
        differs=differs,
        measures=[*_scores(of_a, of_b), *_sizes(models), *_speeds(models, one_machine)],
        scores=[_score(row) for row in query_named("asked", a=a.run, b=b.run)],
        pairs=_pairs(query_named("pairs", a=a.run, b=b.run)),
        apart=apart,
    )


def geometric_mean(ratios: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Of positive ratios, with its 95 % interval: Student's, of the mean of their logarithms."""
    logs = [math.log(ratio) for ratio in ratios]
    mean, count = math.fsum(logs) / len(logs), len(logs)
    if count < 2:
        return math.exp(mean), None, None
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in logs) / (count - 1) / count)
    reach = float(student.ppf((1 + SURE) / 2, count - 1)) * error
    return math.exp(mean), math.exp(mean - reach), math.exp(mean + reach)


def _text_of(row: Row) -> tuple[str, str, str, int]:
    return row["subject"], row["source"], row["dataset_hash"], row["window"]


def _models(of_a: Sequence[Row], of_b: Sequence[Row]) -> list[Model]:
    """The models that both runs made, one of each unless they made several; those have names."""
    first_a, first_b = ({row["subject"]: row for row in reversed(rows)} for rows in (of_a, of_b))
    shared = [subject for subject in dict.fromkeys(row["subject"] for row in of_a) if subject in first_b]
    return [(subject if len(shared) > 1 else "", first_a[subject], first_b[subject]) for subject in shared]


def _scores(of_a: Sequence[Row], of_b: Sequence[Row]) -> list[Measure]:
    """A row for each text and score; a text that only one run has stands alone."""
    rows_a, rows_b = ({_text_of(row): row for row in rows} for rows in (of_a, of_b))
    found = []
    for text in dict.fromkeys([*rows_a, *rows_b]):
        first, second = rows_a.get(text), rows_b.get(text)
        known = first or second or {}
        of = f"{known['source']}, windows of {known['window']}"
        found += [_measure(name, of, first, second, known["dense"]) for name in SCORES]
    return found


def _sizes(models: Sequence[Model]) -> list[Measure]:
    return [_measure(name, of, a, b, a["dense"]) for of, a, b in models for name in SIZES]


def _measure(name: str, of: str, first: Row | None, second: Row | None, dense: Row) -> Measure:
    a, b = (None if row is None else row[name] for row in (first, second))
    return Measure(name=name, of=of, dense=dense.get(name), a=a, b=b, ratio=_ratio(a, b))


def _ratio(a: float | None, b: float | None) -> float | None:
    """None also beside a sparsity below 0: with factors that every token reads, more may be read than of the dense."""
    if a is None or b is None or not (math.isfinite(a) and math.isfinite(b)):
        return None
    return b / a if a > 0 and b >= 0 else None


def _speeds(models: Sequence[Model], one_machine: bool) -> list[Measure]:
    """Of each phase the speed beside dense. The ends of the two intervals bound their ratio: wider than 95 %."""
    found = []
    for of, first, second in models:
        for phase in PHASES:
            names = [f"{phase}_{name}" for name in ("ratio", "low", "high")]
            (a, a_low, a_high), (b, b_low, b_high) = ([row[name] for name in names] for row in (first, second))
            alike = one_machine and first["timed_on"] == second["timed_on"] and None not in (a, b)
            ends = {"ratio": b / a, "low": b_low / a_high, "high": b_high / a_low} if alike else {"ratio": None}
            if a is not None or b is not None:
                found.append(Measure(name=f"{phase}_speed", of=of, dense=1.0, a=a, b=b, **ends))
    return found


def _score(row: Row) -> Score:
    errors = (row["a_stderr"], row["b_stderr"])
    return Score(
        name=f"{row['task']} {row['metric']}",
        questions=row["examples"],
        chance=row["chance"],
        a=row["a"],
        b=row["b"],
        difference=row["b"] - row["a"],
        stderr=None if None in errors else math.hypot(*errors),
    )


def _pairs(rows: Sequence[Row]) -> list[Pairs]:
    """Parts that have an error in both; one without any has no ratio."""
    found = []
    for what in dict.fromkeys(row["what"] for row in rows):
        both = [(row["a"], row["b"]) for row in rows if row["what"] == what and row["a"] and row["b"]]
        if both:
            ratio, low, high = geometric_mean([b / a for a, b in both])
            lower = sum(b < a for a, b in both)
            found.append(Pairs(what=what, count=len(both), lower=lower, ratio=ratio, low=low, high=high))
    return found
