"""The figures of a controller's episodes: dense beside chosen, prompt by prompt, and what each action costs."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tasks.record.pages import units
from tasks.record.pages.drawing import (
    DASHES,
    FAINT,
    INK,
    PAPER,
    SERIES,
    canvas,
    colours_of,
    label_rows,
    legend,
    log_scale,
    rows_height,
    styled,
    to_svg,
)
from tasks.record.pages.tables import Row

CHOSEN = SERIES[0]
PHASES = {"prefill_ms": "prefill", "decision_ms": "decide", "switch_ms": "switch", "decoding_ms": "decode"}
NONE = "none"


@styled
def by_episode(rows: Sequence[Row], field: str, what: str, name: str, *, log: bool = False) -> str:
    """`rows` of queries/chosen.sql of one floor: `field` of what was chosen beside `dense_<field>`, a point a prompt,
    with a straight line through each (of logarithms, where the axis is logarithmic)."""
    figure, axes = canvas(2.8)
    places = np.arange(1, len(rows) + 1)
    for prefix, colour in (("dense_", FAINT), ("", CHOSEN)):
        values = np.array([row[prefix + field] for row in rows], dtype=float)
        axes.plot(places, values, "o", color=colour, markersize=3, alpha=0.5)
        axes.plot(places, _trend(places, values, log), color=colour)
    if log:
        log_scale(axes)
    else:
        axes.set_ylim(bottom=0)
    axes.set_ylabel(what)
    axes.set_xlabel("test prompt")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    legend(axes, [_dot(CHOSEN, f"as {rows[0]['policy']} chose"), _dot(FAINT, "dense")])
    return to_svg(figure, name)


@styled
def perplexity_by_length(rows: Sequence[Row]) -> str:
    """`rows` of queries/prompts.sql: the perplexity of each prompt against its tokens, a colour a source."""
    figure, axes = canvas(2.8)
    colours = colours_of(row["source"] for row in rows)
    for source, colour in colours.items():
        own = [row for row in rows if row["source"] == source]
        axes.plot(
            [row["tokens"] for row in own], [row["ppl"] for row in own], "o", color=colour, markersize=3, alpha=0.6
        )
    log_scale(axes)
    axes.set_ylabel("perplexity of the prompt")
    axes.set_xlabel("tokens of the prompt")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    legend(axes, [_dot(colour, source) for source, colour in colours.items()])
    return to_svg(figure, "length")


@styled
def time_breakdown(parts: Sequence[Row]) -> str:
    """Where the time of an answer goes: for each row its `name` and the milliseconds of every phase, side by side."""
    names = [row["name"] for row in parts]
    figure, axes = canvas(0.9 + rows_height(names))
    colours = dict(zip(PHASES, SERIES, strict=False))
    _stack(axes, parts, PHASES, colours.__getitem__)
    label_rows(axes, names)
    axes.set_xlabel("milliseconds of an answer, mean (shorter is better)")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    legend(axes, [_dot(colours[phase], said) for phase, said in PHASES.items()])
    return to_svg(figure, "breakdown")


@styled
def memory(rows: Sequence[Row]) -> str:
    """`rows` of queries/actions.sql of all sources: the parameters in force and the prompt's cache of each action."""
    names = [row["action"] for row in rows]
    figure, axes = canvas(0.9 + rows_height(names))
    parts = {"memory_bytes": "parameters in force", "cache_bytes": "the prompt's cache, mean"}
    colours = dict(zip(parts, SERIES, strict=False))
    _stack(axes, rows, parts, colours.__getitem__)
    label_rows(axes, names)
    axes.set_xlabel("memory (shorter is better)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.size(value) if value else "0"))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    legend(axes, [_dot(colours[part], said) for part, said in parts.items()])
    return to_svg(figure, "memory")


@styled
def quality_by_speed(actions: Sequence[Row], policies: Sequence[Row]) -> str:
    """`actions` of queries/actions.sql of all sources, a point each, and a line along those that nothing beats in both;
    `policies` of queries/controllers.sql, a diamond each. Right and low is better."""
    figure, axes = canvas(3.2)
    points = [(row["ratio"], max(0.0, row["rise"]), row["action"]) for row in actions]
    best = _frontier([(ratio, rise) for ratio, rise, _ in points])
    axes.plot(*zip(*best, strict=True), color=FAINT, linewidth=1, linestyle=DASHES[2], drawstyle="steps-post")
    for ratio, rise, action in points:
        axes.plot(ratio, rise, "o", color=INK if action == NONE else FAINT, markersize=4)
        axes.annotate(action, (ratio, rise), (5, 3), textcoords="offset points", color=FAINT, fontsize=7)
    colours = colours_of(row["policy"] for row in policies)
    for row in policies:
        axes.plot(row["ratio"], max(0.0, row["mean_rise"]), "D", color=colours[row["policy"]], markersize=5, alpha=0.8)
    axes.set_yscale("symlog", linthresh=0.02)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylabel("mean rise of the perplexity")
    axes.set_xlabel("mean speed relative to dense")
    entries = [
        Line2D([], [], color=colour, marker="D", linestyle="", markersize=5, label=policy)
        for policy, colour in colours.items()
    ]
    legend(axes, entries)
    return to_svg(figure, "quality")


@styled
def speed_by_source(rows: Sequence[Row]) -> str:
    """`rows` of queries/actions.sql of each source: the mean speed of every action, a bar each, a colour a source."""
    sources = list(dict.fromkeys(row["source"] for row in rows))
    names = list(dict.fromkeys(row["action"] for row in rows))
    figure, axes = canvas(0.9 + rows_height(names) * max(1.0, len(sources) / 2))
    colours, thick = colours_of(sources), 0.8 / len(sources)
    for row in rows:
        place = names.index(row["action"]) + (sources.index(row["source"]) - (len(sources) - 1) / 2) * thick
        axes.barh(place, row["ratio"], height=0.9 * thick, color=colours[row["source"]])
    axes.axvline(1, color=INK, linewidth=1)
    label_rows(axes, names)
    axes.set_xlabel("mean speed relative to dense")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    legend(axes, [_dot(colour, source) for source, colour in colours.items()])
    return to_svg(figure, "sources")


def _stack(axes: Axes, rows: Sequence[Row], parts: dict[str, str], colour_of: Callable[[str], str]) -> None:
    """A bar a row, of its parts one after the other."""
    for place, row in enumerate(rows):
        reached = 0.0
        for part in parts:
            colour = colour_of(part)
            axes.barh(place, row[part], left=reached, height=0.62, color=colour, edgecolor=PAPER, linewidth=0.5)
            reached += row[part]


def _trend(places: np.ndarray, values: np.ndarray, log: bool) -> np.ndarray:
    """The straight line of least squares."""
    if len(values) < 2:
        return values
    line = np.polyval(np.polyfit(places, np.log(values) if log else values, 1), places)
    return np.exp(line) if log else line


def _frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those points than which none is both faster and better, the slowest first."""
    best: list[tuple[float, float]] = []
    for ratio, rise in sorted(points, key=lambda point: (-point[0], point[1])):
        if not best or rise < best[-1][1]:
            best.append((ratio, rise))
    return best[::-1]


def _dot(colour: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, marker="o", markersize=4, linestyle="", label=label)
