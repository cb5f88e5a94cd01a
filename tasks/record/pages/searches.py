"""The section of a page about a budget that was divided among the parts of a model: how, and what came of it."""

from collections.abc import Sequence

from tasks.record.metrics import query_named
from tasks.record.pages import units
from tasks.record.pages.drawing import framed
from tasks.record.pages.search_figures import allocation_by_block, learning_curves, levels_by_share, rewards_by_tokens
from tasks.record.pages.tables import METHOD, PATTERN, Column, Row, by_run, chosen, section, to_html

ALLOCATION_CAPTION = "What goes of each block: the share of its head groups and channels, or of its weights."
CURVE_CAPTION = (
    "Loss of what an allocator tried (points, crosses where a gate refused it) and of its best so far (line), against "
    "the tokens it had looked at; in nats a token, on the windows of the search."
)
REWARD_CAPTION = "What a policy was paid for the allocations that it tried (points), and the most so far (line)."
LEVELS_CAPTION = (
    "What a part costs alone: the rise of the loss with a share of it gone, in nats a token; faint is early."
)


def searches(run: str) -> str:
    """The allocators side by side, what those that choose among others chose from, and three figures."""
    rows = query_named("allocators", run=run)
    if not rows:
        return ""
    drawn = []
    for number, pattern in enumerate(sorted({row["pattern"] for row in rows})):
        drawn += _of_pattern(run, pattern, number, named=len({row["pattern"] for row in rows}) > 1)
    levels = query_named("levels", run=run)
    if len({row["run"] for row in levels}) == 1:
        drawn.append(framed(levels_by_share(levels), LEVELS_CAPTION))
    tables = to_html(_columns(), rows, "Allocators", _caption(rows)) + _candidates(run)
    return section("Allocation", tables, f'<div class="figures">{"".join(drawn)}</div>')


def _of_pattern(run: str, pattern: str, number: int, *, named: bool) -> list[str]:
    """The figures of the searches that were asked for as much: what they found, and how they came to it."""
    parts, moves = (
        [row for row in query_named(table, run=run) if row["pattern"] == pattern]
        for table in ("allocations", "searches")
    )
    paid = [row for row in moves if row["reward"] is not None and row["accepted"] is None]
    methods = [row["method"] for row in parts]
    drawn = {ALLOCATION_CAPTION: allocation_by_block(parts, number, methods)}
    drawn |= {CURVE_CAPTION: learning_curves(moves, number, methods)} if moves else {}
    drawn |= {REWARD_CAPTION: rewards_by_tokens(paid, number, methods)} if paid else {}
    return [framed(svg, f"{pattern}: {caption}" if named else caption) for caption, svg in drawn.items()]


def _columns() -> list[Column]:
    return [
        METHOD,
        PATTERN,
        Column(title="Allocator", show=lambda row: row["allocator"], numeric=False),
        Column(title="Tokens looked at", show=lambda row: units.count(row["tokens"]), note=_limit),
        Column(title="Forwards", show=lambda row: _forwards(row), note=_hits),
        Column(title="Dense", show=lambda row: units.digits(row["dense_loss"])),
        Column(title="Uniform", show=lambda row: units.digits(row["uniform_held_out_loss"])),
        Column(title="Found", show=lambda row: units.digits(row["held_out_loss"]), strong=_is_better),
        Column(title="On the search", show=lambda row: units.digits(row["search_loss"])),
        Column(title="Time", show=lambda row: units.seconds(row["seconds"]), note=_when),
    ]


def _caption(rows: Sequence[Row]) -> str:
    windows = ", ".join(dict.fromkeys(f"{row['windows']} and {row['held_out_windows']}" for row in rows))
    why = " ".join(dict.fromkeys(row["why"] for row in rows if row["why"]))
    return (
        "Nats a token of the model with what would go masked, before any update, repair or recovery, on calibration "
        f"windows that no search looked at; beside them on those of the search ({windows} windows apart). {why}"
    ).rstrip()


def _candidates(run: str) -> str:
    """A table for each run whose allocator chose among others."""
    columns = [
        Column(title="Allocator", show=lambda row: row["name"], numeric=False, heads_row=True),
        Column(title="Tokens looked at", show=lambda row: units.count(row["tokens"])),
        Column(title="Loss, held out", show=lambda row: units.digits(row["held_out"])),
        Column(title="Above uniform", show=lambda row: f"[{row['low']:+.4f}, {row['high']:+.4f}]"),
        chosen("Taken"),
    ]
    tables = []
    for name, own in by_run(query_named("candidates", run=run)):
        caption = f"{name}: what it chose from, with the 95\u00a0% interval of the loss above that of uniform levels."
        tables.append(to_html(columns, own, f"Chosen from by {name}", caption))
    return "".join(tables)


def _limit(row: Row) -> str:
    return f"of {units.count(row['limit'])}"


def _forwards(row: Row) -> str:
    return units.count(0 if row["cached"] else row["forwards"])


def _hits(row: Row) -> str:
    return f"+ {units.count(row['hits'] + (row['forwards'] if row['cached'] else 0))} known"


def _when(row: Row) -> str:
    return "earlier" if row["cached"] else ""


def _is_better(row: Row) -> bool:
    return row["held_out_loss"] < row["uniform_held_out_loss"]
