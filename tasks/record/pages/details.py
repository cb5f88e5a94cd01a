"""The sections of a page below its results: where the time went, what was read, and every pruned linear."""

from collections.abc import Mapping, Sequence

from tasks.record.metrics import query_named
from tasks.record.pages import units
from tasks.record.pages.results import overlap_of
from tasks.record.pages.tables import METHOD, PATTERN, Column, Row, by_run, fold, section, table_section, to_html
from tasks.record.pages.titles import reuse_told


def stages(run: str, runs: Sequence[Row]) -> str:
    """Seconds of each stage: of one run a stage a line, of a sweep a run a line."""
    rows = query_named("stages", run=run)
    if not rows:
        return ""
    total = units.seconds(sum(row["seconds"] for row in runs))
    cached = sum(row["cached"] for row in rows)
    caption = f"{total} in all; {reuse_told(len(runs), len(rows), cached)}."
    if len(runs) == 1:
        columns = [
            Column(title="Stage", show=lambda row: row["stage"], numeric=False, heads_row=True),
            Column(title="Time", show=_time),
        ]
        return table_section("Stages", columns, rows, caption)
    taken = {(row["run"], row["stage"]): row for row in rows}
    columns = [
        METHOD,
        PATTERN,
        *(_stage_column(stage, taken) for stage in dict.fromkeys(row["stage"] for row in rows)),
        Column(title="whole run", show=lambda row: units.seconds(row["seconds"])),
    ]
    return table_section("Stages", columns, runs, caption)


def _stage_column(stage: str, taken: Mapping[tuple[str, str], Row]) -> Column:
    return Column(title=stage, show=lambda row: _time(taken.get((row["run"], stage))))


def _time(stage: Row | None) -> str:
    if stage is None:
        return units.ABSENT
    return "cached" if stage["cached"] else units.seconds(stage["seconds"])


def datasets(run: str) -> str:
    columns = [
        Column(title="Role", show=lambda row: row["role"], numeric=False, heads_row=True),
        Column(title="Source", show=lambda row: row["source"], numeric=False),
        Column(title="Documents", show=lambda row: units.count(row["documents"])),
        Column(title="Bytes", show=lambda row: units.count(row["text_bytes"])),
        Column(title="Tokens", show=lambda row: units.count(row["tokens"])),
        Column(title="Windows", show=lambda row: f"{units.count(row['windows'])} of {units.count(row['window'])}"),
        Column(title="SHA-256 of the texts", show=lambda row: f"{row['dataset_hash'][:16]}…", numeric=False),
    ]
    return table_section(
        "Texts", columns, query_named("datasets", run=run), f"What was read. {overlap_of(run)}".strip()
    )


OF_SOME_LINEARS = {  # a column of the rows -> of the page, where it says something
    "sweep_error": Column(title="Error of the sweep", show=lambda row: units.scientific(row["sweep_error"])),
    "damp": Column(title="Damping", show=lambda row: units.ABSENT if row["damp"] is None else f"{row['damp']:g}"),
    "rank": Column(title="Rank", show=lambda row: units.count(row["rank"])),
    "order": Column(title="Order", show=lambda row: row["order"] or "as it is", numeric=False),
}


def linears(run: str) -> str:
    """Every pruned linear, folded away: one fold a run."""
    columns = [
        Column(title="Block", show=lambda row: str(row["block"])),
        Column(title="Linear", show=lambda row: row["linear"], numeric=False, heads_row=True),
        Column(title="Shape", show=lambda row: f"{row['out_features']} × {row['in_features']}"),
        Column(
            title="Zeros", show=lambda row: units.count(row["zeros"]), note=lambda row: units.percent(row["sparsity"])
        ),
        Column(title="Output error", show=_linear_error),
        Column(title="Time", show=lambda row: units.seconds(row["seconds"])),
    ]
    folds = []
    for name, own in by_run(query_named("linears", run=run)):
        caption = "The output error is relative, on the calibration inputs."
        more = [column for of, column in OF_SOME_LINEARS.items() if any(row.get(of) is not None for row in own)]
        if any(_is_estimate(row) for row in own):
            caption += " ≈ is an estimate from the norms of the inputs alone, without what these have in common."
        table = to_html([*columns, *more], own, name, caption)
        folds.append(fold(f"{name}: {len(own)} linears", table))
    return section("Linears", *folds) if folds else ""


def _linear_error(row: Row) -> str:
    return f"{'≈ ' if _is_estimate(row) else ''}{units.scientific(row['error'])}"


def _is_estimate(row: Row) -> bool:
    return row["error"] is not None and row.get("error_from") == "norms"
