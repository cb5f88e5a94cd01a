"""The section of a page about benchmarks: what each model scores, how sure that is, and what chance would score."""

from collections.abc import Callable, Mapping, Sequence

from tasks.evaluate.benchmark_row import BenchmarkRow
from tasks.record.metrics import query_named
from tasks.record.pages import units
from tasks.record.pages.benchmark_figure import scores_beside_chance
from tasks.record.pages.drawing import framed
from tasks.record.pages.tables import Column, Row, fold, section, to_html, to_markdown

SURE = 2.0  # standard errors that a score must lie above chance


def benchmarks(run: str) -> str:
    """The benchmarks that were asked for; the tasks of a group below them, to be opened."""
    rows = query_named("benchmarks", run=run)
    if not rows:
        return ""
    asked = [row for row in rows if row["within"] is None]
    parts = [to_html(_columns(asked), asked, "Benchmarks", _caption(asked))]
    drawn = [row for row in asked if row["chance"] is not None]
    if drawn:
        says = "Scores with two standard errors on both sides; the upright stroke is chance."
        parts.append(f'<div class="figures">{framed(scores_beside_chance(drawn, "benchmarks"), says)}</div>')
    for group in dict.fromkeys(row["within"] for row in rows if row["within"] is not None):
        own = [row for row in rows if row["within"] == group]
        parts.append(fold(f"{group}, task by task", to_html(_columns(own), own, group, f"The tasks of {group}.")))
    return section("Benchmarks", *parts)


def benchmarks_table(run: str) -> str:
    """The benchmarks that were asked for, as Markdown; nothing where there are none."""
    rows = [row for row in query_named("benchmarks", run=run) if row["within"] is None]
    return to_markdown(_columns(rows), rows) if rows else ""


def benchmark_metrics(rows: Sequence[BenchmarkRow]) -> dict[str, float]:
    """Name -> value, as MLflow has them; those of the dense model begin with it: `dense_arc_easy_acc`."""
    prefixes = {row.subject: "dense_" if row.subject == "dense" else "" for row in rows}
    return {f"{prefixes[row.subject]}{row.task}_{row.metric}": row.value for row in rows if row.within is None}


def _columns(rows: Sequence[Row]) -> list[Column]:
    """A model has a column where one of its kind was asked; what all rows have in common has none."""
    models = [("Dense", "dense", "dense_stderr")] if any(row["dense"] is not None for row in rows) else []
    others = dict.fromkeys(row["subject"] for row in rows if row["subject"] is not None)
    models += [("Pruned" if name == "pruned" else "Score", "value", "stderr") for name in others]
    few_shot = len({row["few_shot"] for row in rows}) > 1
    return [
        Column(title="Task", show=lambda row: row["task"], numeric=False, heads_row=True),
        Column(title="Metric", show=lambda row: row["metric"], numeric=False),
        *(_score(*model) for model in models),
        *([Column(title="Change", show=_change)] if len(models) > 1 else []),
        Column(title="Chance", show=lambda row: units.percent(row["chance"])),
        Column(title="Questions", show=lambda row: units.count(row["examples"])),
        *([Column(title="Examples shown", show=lambda row: str(row["few_shot"]))] if few_shot else []),
    ]


def _score(title: str, name: str, error: str) -> Column:
    def note(row: Row) -> str:
        return "" if row[error] is None else f"± {_shown(row)(row[error])}"

    return Column(title=title, show=lambda row: _shown(row)(row[name]), note=note)


def _change(row: Row) -> str:
    if row["dense"] is None or row["value"] is None:
        return units.ABSENT
    if row["chance"] is None:
        return units.ratio(row["value"] / row["dense"]) if row["dense"] else units.ABSENT
    return f"{100 * (row['value'] - row['dense']):+.1f} points"


def _shown(row: Mapping[str, object]) -> Callable[[float | None], str]:
    """A share in percent, any other number by its digits."""
    return units.percent if str(row["metric"]).startswith("acc") else units.digits


def _caption(rows: Sequence[Row]) -> str:
    first = rows[0]
    asked = "of each task the first " + units.count(first["limited_to"]) if first["limited_to"] else "all of them"
    said = [f"lm-eval's questions, {asked}{', in the chat template' if first['chat'] else ''}; ± is a standard error."]
    judged = [row for row in rows if row["value"] is not None and None not in (row["chance"], row["stderr"])]
    unsure = [row for row in judged if row["value"] <= row["chance"] + SURE * row["stderr"]]
    if judged:
        said.append(f"{len(unsure)} of {len(judged)} scores are not surely above chance.")
    if shortened := sum({row["task"]: row["shortened"] for row in rows}.values()):
        said.append(f"{units.count(shortened)} texts were longer than the context and lost their beginning.")
    return " ".join(said)
