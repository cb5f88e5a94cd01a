"""The section of a page about profiles: what each leaves of its model, what it holds, how fast one switches to it."""

from tasks.record.metrics import query_named
from tasks.record.pages import units
from tasks.record.pages.tables import Column, Row, table_section

LEFT = {"blocks": "Blocks", "head_groups": "Head groups", "channels": "Channels"}


def profiles(run: str) -> str:
    """Every profile, the model itself first."""
    rows = query_named("profiles", run=run)
    columns = [
        Column(title="Profile", show=lambda row: row["profile"], numeric=False, heads_row=True),
        *(_left(title, name) for name, title in LEFT.items() if any(row[name] is not None for row in rows)),
        Column(title="Parameters", show=lambda row: units.count(row["parameters"]), note=_relative),
        Column(title="Own memory", show=lambda row: units.size(row["own_bytes"])),
        Column(title="Shared with the model", show=lambda row: units.size(row["shared_bytes"])),
        Column(title="Switch, median", show=lambda row: units.milliseconds(row["switch_median_ms"])),
        Column(title="Worst", show=lambda row: units.milliseconds(row["switch_worst_ms"])),
    ]
    return table_section("Profiles", columns, rows, _caption(rows)) if rows else ""


def _left(title: str, name: str) -> Column:
    return Column(title=title, show=lambda row: units.count(row[name]))


def _relative(row: Row) -> str:
    return "" if row["profile"] == "none" else units.ratio(row["parameters"] / row["whole_parameters"])


def _caption(rows: list[Row]) -> str:
    model = next(row for row in rows if row["profile"] == "none")
    own = sum(row["own_bytes"] for row in rows)
    apart = sum(row["own_bytes"] + row["shared_bytes"] for row in rows)
    switches = sum(row["switches"] for row in rows)
    return (
        f"The model takes {units.size(model['shared_bytes'])} of memory, its profiles {units.size(own)} beside it, "
        f"counted over their storages; as models of their own, it among them, {units.size(apart)}. A switch changes "
        f"what the modules refer to and copies nothing; {units.count(switches)} from any to any other were timed."
    )
