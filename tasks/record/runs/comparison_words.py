"""A comparison and a lineage as words for the terminal."""

from collections.abc import Callable, Mapping, Sequence

from tasks.record.pages import units
from tasks.record.pages.tables import Column, Row, to_markdown
from tasks.record.registry.gates import Gate
from tasks.record.runs.comparison import Comparison, Measure, Pairs, Score
from tasks.record.runs.lineage import Differences, Lineage

SHOWN = 12  # digits of a hash
HASHES = {"data", "code"}  # groups of inputs whose values are hashes
LABELS: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "ppl": ("perplexity", units.digits),
    "nll": ("nats/token", units.digits),
    "bits_per_byte": ("bits/byte", units.digits),
    "sparsity": ("sparsity", units.percent),
    "parameters": ("parameters", units.count),
    "size_bytes": ("size", units.size),
    "memory_bytes": ("memory", units.size),
    "kv_bytes": ("cache of 1,000 tokens", units.size),
    "prefill_speed": ("prefill speed beside dense", units.ratio),
    "decode_speed": ("decode speed beside dense", units.ratio),
}


def comparison_words(found: Comparison) -> str:
    """Who is compared, in what they differ, what was measured; a table each, and none that would be empty."""
    tables = [differing_words(found.differs), _measured(found.measures), _scored(found.scores), _paired(found.pairs)]
    notes = "".join(f"{note}\n" for note in found.apart)
    return "\n".join([f"A  {_said(found.a)}\nB  {_said(found.b)}\n", *filter(None, [*tables, notes])])


def lineage_words(lineage: Lineage) -> str:
    """What a run or a version came of, and what it left, a line each."""
    rows = [
        {"group": group, "name": name, "value": value}
        for group, own in lineage.inputs().items()
        for name, value in own.items()
    ]
    rows += [{"group": "made", "name": kind, "value": content} for kind, content in lineage.contents.items()]
    columns = [_column(title, title.lower()) for title in ("Group", "Name", "Value")]
    return f"{_said(lineage)}\n{lineage.command}\n\n{to_markdown(columns, rows)}"


def _said(lineage: Lineage) -> str:
    version = "" if lineage.version is None else f", version {lineage.version}"
    return f"{lineage.run}: {lineage.flow}, {lineage.method} {lineage.pattern} of {lineage.model}{version}"


def differing_words(differs: Differences) -> str:
    """The inputs that differ, as a table; a sentence where none does."""
    rows = [
        {"group": group, "name": name, "a": _value(group, a), "b": _value(group, b)}
        for group, own in differs.items()
        for name, (a, b) in own.items()
    ]
    if not rows:
        return "No input differs.\n"
    return to_markdown(
        [_column(*each) for each in (("Differs", "group"), ("In", "name"), ("A", "a"), ("B", "b"))], rows
    )


def _value(group: str, value: str | None) -> str:
    if value is None:
        return units.ABSENT
    return value[:SHOWN] if group in HASHES else value


def _measured(measures: Sequence[Measure]) -> str:
    """A text that is the only one stands above the table."""
    on = dict.fromkeys(measure.of for measure in measures if measure.of)
    columns = [
        _column("Measured", "name"),
        *([_column("On", "of")] if len(on) > 1 else []),
        *(_column(title, title.lower(), numeric=True) for title in ("Dense", "A", "B")),
        _column("B beside A", "beside", numeric=True),
    ]
    rows = []
    for measure in measures:
        label, show = LABELS[measure.name]
        shown = {name: show(getattr(measure, name)) for name in ("dense", "a", "b")}
        rows.append({"name": label, "of": measure.of, **shown, "beside": _within(measure)})
    if not rows:
        return ""
    return (f"Scored on {next(iter(on))}.\n\n" if len(on) == 1 else "") + to_markdown(columns, rows)


def _within(found: Measure | Pairs) -> str:
    if found.ratio is None:
        return units.ABSENT
    ratio = f"{units.digits(found.ratio)}×"
    return ratio if found.low is None else f"{ratio} [{units.digits(found.low)}, {units.digits(found.high)}]"


def _scored(scores: Sequence[Score]) -> str:
    columns = [
        _column("Benchmark", "name"),
        *(_column(title, title.lower(), numeric=True) for title in ("Questions", "A", "B", "Chance")),
        _column("B less A", "less", numeric=True),
    ]
    rows = [
        {
            "name": score.name,
            "questions": units.count(score.questions),
            **{name: units.digits(getattr(score, name)) for name in ("a", "b", "chance")},
            "less": f"{score.difference:+.3g}" + ("" if score.stderr is None else f" ± {score.stderr:.2g}"),
        }
        for score in scores
    ]
    return to_markdown(columns, rows) if rows else ""


def _paired(pairs: Sequence[Pairs]) -> str:
    columns = [
        _column("In pairs", "what"),
        _column("Pairs", "count", numeric=True),
        _column("B lower in", "lower", numeric=True),
        _column("B beside A", "beside", numeric=True),
    ]
    rows = [
        {"what": pair.what, "count": str(pair.count), "lower": str(pair.lower), "beside": _within(pair)}
        for pair in pairs
    ]
    return to_markdown(columns, rows) if rows else ""


def _column(title: str, name: str, numeric: bool = False) -> Column:
    def show(row: Row) -> str:
        return row[name]

    return Column(title=title, show=show, numeric=numeric)


def gates_words(gates: Sequence[Gate]) -> str:
    """Each gate with its figure, its limit and the row that says it."""
    rows = [
        {"name": gate.name, "passed": "yes" if gate.passed else "no", "says": gate.says, "evidence": gate.evidence}
        for gate in gates
    ]
    titles = {"Gate": "name", "Passed": "passed", "Figure and limit": "says", "Row": "evidence"}
    return to_markdown([_column(title, name) for title, name in titles.items()], rows)


def made_words(made: Mapping[str, tuple[str, str | None]]) -> str:
    """What was made again beside what is stored, by kind of artifact."""
    rows = [
        {"kind": kind, "stored": stored, "again": again or units.ABSENT, "same": "yes" if again == stored else "no"}
        for kind, (stored, again) in made.items()
    ]
    titles = {"Made": "kind", "Stored": "stored", "Rebuilt": "again", "Same": "same"}
    return to_markdown([_column(title, name) for title, name in titles.items()], rows)
