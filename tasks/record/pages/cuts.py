"""The sections of a page about models with fewer parameters: their blocks, how units were chosen, what was trained."""

from tasks.record.metrics import query_named
from tasks.record.pages import units
from tasks.record.pages.tables import (
    METHOD,
    PATTERN,
    Column,
    Row,
    by_run,
    chosen,
    fold,
    section,
    table_section,
    to_html,
)

NEAR = 0.01  # of a share: nearer to the budget nobody has to be told
COSTS = {"parameters": "parameters", "flops": "FLOPs", "bytes": "bytes", "kv": "cache"}
STORED = {
    "uniform": "",
    "per_layer": " Stored per layer: it loads with trust_remote_code=True.",
    "padded": " Stored padded: zeros fill up every block to the widest, as large and as slow as that.",
}
WHOLE = {"blocks": "Removed whole", "attention": "Without their attention", "ffn": "Without their FFN"}
WIDTHS = {"head_groups": "Head groups", "query_heads": "Query heads", "channels": "Channels"}


def cut_blocks(run: str) -> str:
    """Every block with its widths before and after: one table a run, folded away where there are several."""
    removals, tables = query_named("removals", run=run), []
    for name, own in by_run(query_named("slices", run=run)):
        cut = own[0]["run"]
        gone = [row for row in removals if row["run"] == cut]
        caption = " ".join(filter(None, [_removals_caption(gone), *budgets_missed(cut), _errors_caption(own)]))
        tables.append((name, to_html(_block_columns(own), own, name, caption)))
    if len(tables) == 1:
        return section("Blocks", *budgets(run), tables[0][1])
    return section("Blocks", *budgets(run), *(fold(name, table) for name, table in tables)) if tables else ""


def budgets(run: str) -> list[str]:
    """The table of what was to go and what went; none for runs of before that was stored."""
    columns = [
        METHOD,
        PATTERN,
        Column(title="Of the blocks'", show=_cost, numeric=False),
        Column(title="To go", show=lambda row: units.percent(row["asked"])),
        Column(title="Gone", show=lambda row: units.percent(row["removed"])),
        Column(title="Form", show=lambda row: row["form"], numeric=False),
    ]
    rows = query_named("budgets", run=run)
    reasons = dict.fromkeys(f"Not {row['passed_over']}." for row in rows if row["passed_over"])
    caption = " ".join(["Counted on the model as it was cut.", *reasons])
    return [to_html(columns, rows, "What was to go and what went", caption)] if rows else []


def budgets_told(run: str) -> list[str]:
    """For every cut what was to go of the cost of its blocks, what went, and what its form asks of who loads it."""
    return [_told(row) + STORED[row["form"]] for row in query_named("budgets", run=run)]


def budgets_missed(run: str) -> list[str]:
    """Those of the cuts that removed another share than was asked for, by a percent or more."""
    return [_told(row) for row in query_named("budgets", run=run) if _missed(row)]


def _told(row: Row) -> str:
    asked, went = f"{units.percent(row['asked'])} of the {_cost(row)} of the blocks", units.percent(row["removed"])
    why = ": units go in steps (--round-to, whole heads, attentions, FFNs and blocks)" if _missed(row) else ""
    return f"{row['method']} {row['pattern']}: {asked} were to go, {went} went{why}."


def _missed(row: Row) -> bool:
    return abs(row["asked"] - row["removed"]) >= NEAR


def _cost(row: Row) -> str:
    """`parameters`, or `FLOPs at 512 tokens`."""
    return COSTS[row["cost"]] + (f" at {units.count(row['context'])} tokens" if row["cost"] in ("flops", "kv") else "")


def _block_columns(rows: list[Row]) -> list[Column]:
    """Of the widths those that a block has, of the errors those that were measured."""
    errors = {"cut_error": "Error, cut", "repaired_error": "Error, repaired"}
    return [
        Column(title="Block", show=lambda row: str(row["block"]), heads_row=True),
        *(_width(title, name) for name, title in WIDTHS.items() if any(row[name] is not None for row in rows)),
        _width("Parameters", "parameters"),
        *(_error(title, name) for name, title in errors.items() if any(row[name] is not None for row in rows)),
        Column(title="Time", show=lambda row: units.seconds(row["seconds"])),
    ]


def _width(title: str, name: str) -> Column:
    def show(row: Row) -> str:
        before, after = row[f"{name}_before"], row[name]
        return units.count(after) if before == after else f"{units.count(before)} → {units.count(after)}"

    return Column(title=title, show=show)


def _error(title: str, name: str) -> Column:
    return Column(title=title, show=lambda row: units.scientific(row[name]))


def _removals_caption(gone: list[Row]) -> str:
    """A sentence for each kind; rows of before it was stored are of blocks."""
    said = []
    for kind, how in WHOLE.items():
        rows = [row for row in gone if (row["kind"] or "blocks") == kind]
        numbers = ", ".join(str(row["block"]) for row in rows)
        parameters = units.count(sum(row["parameters"] for row in rows))
        said += [f"{how}, by their numbers before: {numbers}, of {parameters} parameters together."] if rows else []
    return " ".join(said)


def _errors_caption(rows: list[Row]) -> str:
    if all(row["cut_error"] is None for row in rows):
        return "What is left of each block."
    return (
        "What is left of each block. Errors are squared and relative, of the block's output, on windows to which "
        "nothing was fitted, behind the blocks that were cut before it."
    )


def splits(run: str) -> str:
    """How the budget was divided between heads and channels, and what the other ways would have cost."""
    columns = [
        METHOD,
        PATTERN,
        Column(title="Heads", show=lambda row: row["kind"].replace("_", " "), numeric=False),
        Column(title="Removed a block", show=lambda row: f"{row['heads_removed']:g}"),
        Column(title="Channels removed", show=lambda row: units.percent(row["channels_removed"])),
        Column(title="Parameters", show=lambda row: units.count(row["parameters"])),
        Column(title="Loss, masked", show=lambda row: units.digits(row["loss"])),
        Column(title="Loss, repaired", show=lambda row: units.digits(row["repaired_loss"])),
        chosen("Taken"),
    ]
    caption = (
        "The ways to meet the budget, and the loss of each in nats a token on some of the calibration windows with "
        "what would go masked; of the two lowest also cut and repaired on a few others, where a repair follows."
    )
    return table_section("Heads or channels", columns, query_named("splits", run=run), caption)


def repairs(run: str) -> str:
    """What the plain cut, half of its repair and all of it lose, and which was kept."""
    columns = [
        METHOD,
        PATTERN,
        Column(title="Share of the repair", show=lambda row: units.percent(row["share"])),
        Column(title="Loss", show=lambda row: units.digits(row["loss"])),
        chosen("Kept"),
    ]
    caption = (
        "Nats a token of the whole model on windows to which nothing was fitted. All of the repair stays unless less "
        "of it is clearly better, by two standard errors."
    )
    return table_section("Repair", columns, query_named("repairs", run=run), caption)


def importances(run: str) -> str:
    """How well scores order units, where losses were measured."""
    columns = [
        Column(title="Importance", show=lambda row: row["importance"], numeric=False, heads_row=True),
        Column(title="Units", show=lambda row: row["kind"].replace("_", " "), numeric=False),
        Column(title="Measured", show=lambda row: f"{units.count(row['sampled'])} of {units.count(row['units'])}"),
        Column(title="Rank correlation", show=lambda row: units.signed(row["correlation"])),
    ]
    caption = "Spearman's correlation of the scores with the loss that was measured without each unit of a sample."
    return table_section("Importances", columns, query_named("importances", run=run), caption)


def recoveries(run: str) -> str:
    """The ledger of what was trained on."""
    columns = [
        METHOD,
        PATTERN,
        Column(title="Text", show=lambda row: row["source"], numeric=False),
        Column(title="Steps", show=lambda row: units.count(row["steps"])),
        Column(title="Tokens learned", show=lambda row: units.count(row["learned"])),
        Column(title="Windows", show=lambda row: f"{units.count(row['distinct'])} in {units.count(row['windows'])}"),
        Column(title="Loss", show=lambda row: f"{units.digits(row['first_loss'])} → {units.digits(row['last_loss'])}"),
    ]
    caption = (
        "What the cut model was trained on, with the different windows in all that were shown, and its loss in nats a "
        "token: the mean of the first tenth of the steps, and of the last."
    )
    return table_section("Recovery", columns, query_named("recoveries", run=run), caption)


def forecasts_told(run: str) -> list[str]:
    """A sentence for every forecast: the speed that was foretold before the cut, and the one that was measured."""
    return [
        f"{row['method']} {row['pattern']}: {row['phase']} forecast at {units.ratio(row['forecast_ratio'])} of dense, "
        f"measured at {units.ratio(row['measured_ratio'])}: an error of {units.signed_percent(row['error'])}."
        for row in query_named("forecasts", run=run)
    ]


def forecasts(run: str) -> str:
    """What was said of the speed before anything was cut, against what was measured."""
    columns = [
        METHOD,
        PATTERN,
        Column(title="Phase", show=lambda row: row["phase"], numeric=False),
        Column(title="Forecast latency", show=lambda row: units.milliseconds(row["forecast_latency_ms"])),
        Column(title="Forecast", show=lambda row: units.ratio(row["forecast_ratio"])),
        Column(title="Measured", show=lambda row: units.ratio(row["measured_ratio"])),
        Column(title="Error", show=lambda row: units.signed_percent(row["error"])),
    ]
    caption = (
        "Speed against the dense model, forecast before the cut from products of the widths that would be left, and "
        "measured after it. The latency is of a whole prompt, or of one decoded token."
    )
    return table_section("Speed forecast", columns, query_named("forecasts", run=run), caption)
