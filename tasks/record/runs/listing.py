"""The list of runs: whole, or as wide as a terminal."""

from tasks.record.metrics import query_named
from tasks.record.pages import units
from tasks.record.pages.tables import Column, Row, to_markdown
from tasks.record.pages.titles import how_many

MODEL, METHOD = 16, 12  # characters of a model's name at most, and of a method's at least, where they are shortened

MEASURED = [
    Column(title="Pattern", show=lambda row: row["pattern"], numeric=False),
    Column(title="Dense", show=lambda row: _shown(row, "dense_ppl")),
    Column(title="Perplexity", show=lambda row: _shown(row, "ppl")),
    Column(title="Sparsity", show=lambda row: units.percent(row["sparsity"]) if "sparsity" in row else ""),
]
LEFT = Column(title="Parameters", show=lambda row: units.ratio(row["parameters_left"]) if "sparsity" in row else "")


def runs_table(width: int | None = None) -> str:
    """Every run that has ended, the latest first, those of a sweep below a line of its own, as Markdown.

    `width`: characters of a line at most, for which names lose their middle: similar runs differ at the ends. Without
    it names are whole.
    """
    rows = list(_with_sweeps(query_named("runs")))
    if not rows:
        return "no rows\n"
    some_cut = any(row.get("parameters_left") not in (None, 1.0) for row in rows)
    measured = [*MEASURED, LEFT] if some_cut else MEASURED
    before = [
        Column(title="Run", show=lambda row: row["run"], numeric=False),
        Column(title="Model", show=lambda row: _shortened(row["model"], width and MODEL), numeric=False),
    ]
    others = len(to_markdown([*before, *measured], rows).partition("\n")[0])
    room = width and max(METHOD, width - others - len(" | "))
    method = Column(title="Method", show=lambda row: _shortened(row["method"], room), numeric=False)
    return to_markdown([*before, method, *measured], rows)


def _with_sweeps(runs: list[Row]) -> list[Row]:
    """The rows, and where the latest run of a sweep stands one for the sweep, with all its runs below."""
    together: dict[str, list[Row]] = {}  # by sweep; a run of none is alone
    for row in runs:
        together.setdefault(row["sweep"] or row["run"], []).append(row)
    rows: list[Row] = []
    for name, own in together.items():
        if own[0]["sweep"] is None:
            rows += own
            continue
        models = ", ".join(dict.fromkeys(row["model"] for row in own))
        rows.append({"run": name, "model": models, "method": f"sweep of {how_many(own)}", "pattern": ""})
        rows += [row | {"run": f"· {row['run']}"} for row in own]
    return rows


def _shown(row: Row, name: str) -> str:
    return units.digits(row[name]) if name in row else ""


def _shortened(text: str, room: int | None) -> str:
    if room is None or len(text) <= room:
        return text
    end = room // 2
    return f"{text[: room - 1 - end]}…{text[-end:]}"
