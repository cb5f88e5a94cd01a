"""The section of a page about a run-time controller: its policies side by side, its actions, how it learned."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from tasks.record.metrics import query_named
from tasks.record.pages import units
from tasks.record.pages.controller_drawings import drawings, is_learned
from tasks.record.pages.drawing import framed
from tasks.record.pages.tables import Column, Row, fold, section, to_html, to_markdown

BEST_FIXED = "best fixed"
FIRST, LAST = ("oracle",), (BEST_FIXED, "random", "dense")  # of a table; who learned stands between them


def controllers(run: str) -> str:
    """The policies at each floor, the actions, and the figures; nothing of a run that trained no controller."""
    rows = policies(run)
    if not rows:
        return ""
    uses = query_named("uses", run=run)
    tables = [
        to_html(policy_columns(), list(own), f"Policies at a floor of {100 * floor:g} %", _caption(floor, uses))
        for floor, own in groupby(rows, key=lambda row: row["floor"])
    ]
    return section("Policies", *tables) + _actions(run) + _figures(run, rows, uses)


def policies(run: str) -> list[Row]:
    """The rows of queries/controllers.sql, by floor; the oracle first, then who learned, then what is to be beaten."""
    return sorted(query_named("controllers", run=run), key=_place)


def policies_table(run: str) -> str:
    """The policies of a run as Markdown."""
    rows = policies(run)
    floor = Column(title="Floor", show=lambda row: units.percent(row["floor"]))
    return to_markdown([floor, *policy_columns()], rows) if rows else ""


def policies_summary(run: str) -> str:
    """What a reader should remember of each floor, a sentence each."""
    said = []
    for floor, own in groupby(policies(run), key=lambda row: row["floor"]):
        learned = [row for row in own if is_learned(row)]
        for row in [row for row in learned if row["live"]] or sorted(learned, key=lambda row: row["regret"])[:1]:
            surely = "" if row["gain_low"] <= 0 <= row["gain_high"] else "surely "
            than = f"{surely}{'faster' if row['gain'] > 0 else 'slower'} than the best fixed action"
            said.append(
                f"At a floor of {100 * floor:g} % {row['policy']} answers at {units.ratio(row['ratio'])} the speed of "
                f"the whole model{' live' if row['live'] else ''}, {than}, and breaks the floor for "
                f"{units.percent(row['violations'])} of the test prompts."
            )
    return " ".join(said)


def policy_columns() -> list[Column]:
    return [
        Column(title="Policy", show=_called, numeric=False, heads_row=True),
        Column(title="Speed", show=lambda row: units.ratio(row["ratio"]), note=_interval("ratio")),
        Column(title="Over best fixed", show=_gain, note=_gain_interval, strong=_surely_gains),
        Column(title="Floor broken", show=lambda row: units.percent(row["violations"])),
        Column(title="Mean rise", show=lambda row: units.signed_percent(row["mean_rise"])),
        Column(title="Regret", show=lambda row: units.digits(row["regret"])),
        Column(title="Of the oracle's gain", show=_share),
        Column(title="To decide", show=lambda row: units.milliseconds(row["decision_ms"])),
    ]


def _actions(run: str) -> str:
    """What each action did to all prompts, and folded away to those of each source."""
    rows = query_named("actions", run=run)
    broken: dict[str, dict[float, float]] = {}
    for row in query_named("broken", run=run):
        broken.setdefault(row["action"], {})[row["floor"]] = row["broken"]
    floors = sorted({floor for own in broken.values() for floor in own})
    beyond = [_beyond(floor, broken) for floor in floors]
    sources = list(dict.fromkeys(row["source"] for row in rows if row["source"] is not None))
    whole = [row for row in rows if row["source"] is None]
    caption = (
        f"Every action on all {units.count(whole[0]['prompts'])} prompts of both splits: speed of the whole answer "
        "against that of the whole model, timed in turn (mean, and the range of 90\u00a0% of the prompts), the rise of "
        "the perplexity of the reference, and the share of prompts that go beyond each floor."
    )
    parts = [to_html(_action_columns(beyond), whole, "Actions", caption)]
    for source in sources if len(sources) > 1 else []:
        own = [row for row in rows if row["source"] == source]
        caption = f"The {units.count(own[0]['prompts'])} prompts of {source}."
        parts.append(fold(source, to_html(_action_columns([]), own, f"Actions on {source}", caption)))
    return section("Actions", *parts)


def _beyond(floor: float, broken: Mapping[str, Mapping[float, float]]) -> Column:
    return Column(title=f"Beyond {100 * floor:g} %", show=lambda row: units.percent(broken[row["action"]][floor]))


def _action_columns(beyond: Sequence[Column]) -> list[Column]:
    return [
        Column(title="Action", show=lambda row: row["action"], numeric=False, heads_row=True),
        Column(title="Speed", show=lambda row: units.ratio(row["ratio"]), note=_interval("ratio")),
        Column(title="Tokens/s", show=lambda row: units.digits(row["tokens_per_s"])),
        Column(title="Rise, mean", show=lambda row: units.signed_percent(row["rise"])),
        Column(title="Worst", show=lambda row: units.signed_percent(row["worst_rise"])),
        *beyond,
        Column(title="KL to dense", show=lambda row: units.scientific(row["kl"])),
        Column(title="To switch", show=lambda row: units.milliseconds(row["switch_ms"])),
        Column(title="Cache", show=lambda row: units.size(row["cache_bytes"])),
        Column(title="Parameters", show=lambda row: units.size(row["memory_bytes"])),
    ]


def _figures(run: str, rows: Sequence[Row], uses: Sequence[Row]) -> str:
    drawn = "".join(framed(svg, caption) for caption, svg in drawings(run, rows, uses).items())
    return section("Figures", f'<div class="figures">{drawn}</div>')


def _caption(floor: float, uses: Sequence[Row]) -> str:
    """What is compared, and which action the best fixed one is."""
    [fixed] = {row["action"] for row in uses if row["floor"] == floor and row["policy"] == BEST_FIXED}
    return (
        f"The perplexity of a reference may rise by {100 * floor:g} % at most. The best fixed action, chosen on the "
        f"training prompts, is {fixed}; the oracle knows what each prompt allows. Means over the test prompts and "
        "seeds, with 95\u00a0% intervals; live is what was really answered, with prefill, decision and switch, where "
        "dense is the whole model against itself: what chance alone can gain."
    )


def _place(row: Row) -> tuple[float, int, str, bool]:
    of_kind = 0 if row["policy"] in FIRST else 1
    if row["policy"] in LAST:
        of_kind = 2 + LAST.index(row["policy"])
    return row["floor"], of_kind, row["policy"], row["live"]


def _called(row: Row) -> str:
    return f"{row['policy']}, live" if row["live"] else row["policy"]


def _interval(name: str) -> Callable[[Row], str]:
    return lambda row: f"[{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


def _gain(row: Row) -> str:
    return f"{row['gain']:+.3f}"


def _gain_interval(row: Row) -> str:
    return f"[{row['gain_low']:+.3f}, {row['gain_high']:+.3f}]"


def _surely_gains(row: Row) -> bool:
    return is_learned(row) and row["gain_low"] > 0


def _share(row: Row) -> str:
    return units.percent(row["oracle_share"])
