"""The sections of a page about sparse inputs: what was dropped and kept, what was learned, which products ran."""

from collections.abc import Sequence
from itertools import groupby

from tasks.record.metrics import query_named
from tasks.record.pages import units
from tasks.record.pages.tables import Column, Row, by_run, fold, grouped_html, section, table_section, to_html

SHAPE = ("in_features", "out_features", "dropped", "dtype", "product", "threads")


def sparse_inputs(run: str) -> str:
    """Every projection over all blocks, the runs in one table; and every input of every block of a run, folded away."""
    runs = list(by_run(query_named("sparse_inputs", run=run)))
    if not runs:
        return ""
    caption = (
        "Inputs of all blocks together. Asked is what the pattern drops; dropped, and the energy that was kept "
        "(squares of the kept inputs, as a share of all), were counted on the evaluation text."
    )
    groups = [(name, "", _projections(rows)) for name, rows in runs]
    folds = (
        fold(
            f"{name}: {len(rows)} inputs",
            to_html([_block(), *_input_columns(rows)], rows, name, "Each input of each block."),
        )
        for name, rows in runs
    )
    return section("Sparse inputs", grouped_html(_input_columns([]), groups, "Sparse inputs", caption), *folds)


def learned(run: str) -> str:
    """What the corrections of each block were worth on windows that were held out."""
    columns = [
        _block(),
        Column(title="Steps", show=lambda row: units.count(row["steps"])),
        Column(title="Error before", show=lambda row: units.scientific(row["error_from"])),
        Column(title="Error after", show=lambda row: units.scientific(row["error_to"])),
        Column(title="Change", show=lambda row: units.signed_percent(row["error_to"] / row["error_from"] - 1)),
        Column(title="Time", show=lambda row: units.seconds(row["seconds"])),
    ]
    caption = (
        "The block's output against the dense model's, squared and relative, on windows held out of the calibration "
        "text. Where nothing was gained there, nothing was learned."
    )
    groups = [(name, _kept(rows[0]), rows) for name, rows in by_run(query_named("learned", run=run))]
    title = "Learned corrections"
    return section(title, grouped_html(columns, groups, title, caption)) if groups else ""


def _kept(row: Row) -> str:
    """What became of the loss of the model as a whole, which decides."""
    if row["loss_from"] is None:  # of rows from before it was measured
        return ""
    change = (
        f"The loss of the whole model there went from {row['loss_from']:.4f} to {row['loss_to']:.4f} nats per token"
    )
    return f"{change}." if row["kept"] else f"{change}, so none of it was kept."


def products(run: str) -> str:
    """Which products read kept rows alone: what was measured on this machine, and what follows from it."""
    shapes = [
        list(rows)
        for _, rows in groupby(query_named("products", run=run), key=lambda row: [row[name] for name in SHAPE])
    ]
    columns = [
        Column(title="Inputs", show=lambda row: units.count(row["in_features"]), heads_row=True),
        Column(title="Outputs", show=lambda row: units.count(row["out_features"])),
        Column(title="Dropped", show=lambda row: units.percent(row["dropped"])),
        Column(title="Number", show=lambda row: row["dtype"], numeric=False),
        Column(title="Product", show=lambda row: row["product"] or "gathered", numeric=False),  # old rows name none
        Column(title="Threads", show=lambda row: units.count(row["threads"])),
        *(_ratio(tokens) for tokens in sorted({row["tokens"] for rows in shapes for row in rows})),
    ]
    rows = [own[0] | {_at(row["tokens"]): row for row in own} for own in shapes]
    caption = (
        "How fast the product is that reads kept rows alone, relative to the dense one: of all linears that share an "
        "input, for so many tokens at once, timed in turns once on this machine; choosing the inputs comes on top. "
        "Where it is bold it is used; where it loses, and for more tokens than that, the dense product runs. Rows are "
        "read by a product compiled for the CPU, gathered where none could be compiled, or by Triton's kernel."
    )
    return table_section("Products", columns, rows, caption)


def _ratio(tokens: int) -> Column:
    return Column(
        title=_at(tokens),
        show=lambda row: units.ratio(row[_at(tokens)]["dense_ms"] / row[_at(tokens)]["sparse_ms"]),
        strong=lambda row: row[_at(tokens)]["sparse"],
    )


def _at(tokens: int) -> str:
    return "1 token" if tokens == 1 else f"{tokens} tokens"


def _projections(rows: Sequence[Row]) -> list[Row]:
    """The same linears of all blocks as one row; all have as many inputs, so shares and energies are plain means."""
    every: dict[str, list[Row]] = {}
    for row in rows:
        every.setdefault(row["linears"], []).append(row)
    return [
        own[0] | {name: sum(row[name] for row in own) / len(own) for name in ("asked", "dropped", "energy_kept")}
        for own in every.values()
    ]


def _input_columns(rows: Sequence[Row]) -> list[Column]:
    """Of the thresholds those that a selection has."""
    threshold = Column(title="Threshold", show=lambda row: units.digits(row["threshold"]))
    return [
        Column(title="Read by", show=lambda row: row["linears"].replace("+", ", "), numeric=False, heads_row=not rows),
        Column(title="Asked", show=lambda row: units.percent(row["asked"])),
        Column(title="Dropped", show=lambda row: units.percent(row["dropped"])),
        Column(title="Energy kept", show=lambda row: units.percent(row["energy_kept"])),
        *([threshold] if any(row["threshold"] is not None for row in rows) else []),
        Column(title="Inputs", show=lambda row: units.count(row["in_features"])),
        Column(title="Outputs", show=lambda row: units.count(row["out_features"])),
    ]


def _block() -> Column:
    return Column(title="Block", show=lambda row: str(row["block"]), heads_row=True)
