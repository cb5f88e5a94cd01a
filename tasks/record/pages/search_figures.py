"""The figures of a search: what goes of each block, how the loss fell, what each part costs alone."""

import math
from collections.abc import Sequence
from itertools import accumulate, groupby

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, SymmetricalLogLocator

from tasks.record.pages import units
from tasks.record.pages.drawing import INK, SERIES, canvas, colours_of, legend, styled, to_svg
from tasks.record.pages.tables import Row

POINTS = 400  # of a run at most: more only make the page larger
HALVES = {"attention": "attention", "ffn": "FFN"}
FAINTEST = 0.25
LINEAR = 0.1  # nats per token, below which the axis of the levels is linear


@styled
def allocation_by_block(rows: Sequence[Row], number: int = 0, methods: Sequence[str] = ()) -> str:
    """`rows` of queries/allocations.sql: a panel for the attentions and one for the FFNs, a colour a method."""
    shown = {kind: [row for row in rows if row["kind"] == kind] for kind in HALVES}
    shown = {kind: own for kind, own in shown.items() if own}
    figure, panels = canvas(0.8 + 1.5 * len(shown), nrows=len(shown), sharex=True, squeeze=False)
    colours = _colours(rows, "method", methods)
    for axes, (kind, parts) in zip(panels[:, 0], shown.items(), strict=True):
        for _, of_run in groupby(parts, key=lambda row: row["run"]):
            own = list(of_run)
            blocks, shares = [row["block"] for row in own], [row["share"] for row in own]
            axes.plot(blocks, shares, color=colours[own[0]["method"]], marker="o", markersize=4)
        axes.set_ylabel(f"{HALVES[kind]} gone")
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    panels[-1, 0].set_xlabel("block")
    panels[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(panels[0, 0], [_line(colours[method], method) for method in colours])
    return to_svg(figure, f"allocation{number}")


@styled
def learning_curves(rows: Sequence[Row], number: int = 0, methods: Sequence[str] = ()) -> str:
    """`rows` of queries/searches.sql: a point a move, and a line through the best so far; a colour a method.

    Of a single run whose allocator chose among several, each has a line and a colour of its own. A cross is a move that
    was refused. What is far above the first that was tried is left out, and what is not finite.
    """
    figure, axes = canvas(3.2)
    named = "allocator" if len({row["run"] for row in rows}) == 1 else "method"
    colours = _colours(rows, named, methods if named == "method" else ())
    bests = [row["best"] for row in rows if math.isfinite(row["best"])]
    for _, of_search in groupby(rows, key=lambda row: (row["run"], row["allocator"])):
        own = list(of_search)
        colour = colours[own[0][named]]
        axes.plot([row["tokens"] for row in own], [row["best"] for row in own], color=colour, drawstyle="steps-post")
        tried = [row for row in own[:: -(-len(own) // POINTS)] if math.isfinite(row["loss"])]
        for marker, refused in (("o", False), ("x", True)):
            shown = [(row["tokens"], row["loss"]) for row in tried if (row["accepted"] is False) == refused]
            if shown:
                axes.plot(*zip(*shown, strict=True), marker, color=colour, markersize=2 + refused, alpha=0.4)
    if bests and max(bests) > min(bests):
        room = max(bests) - min(bests)
        axes.set_ylim(min(bests) - 0.1 * room, max(bests) + 0.5 * room)
    axes.set_ylabel("loss (lower is better)")
    _tokens_below(axes)
    legend(axes, [_line(colour, name) for name, colour in colours.items()])
    return to_svg(figure, f"search{number}")


@styled
def rewards_by_tokens(rows: Sequence[Row], number: int = 0, methods: Sequence[str] = ()) -> str:
    """`rows` of queries/searches.sql of policies that are paid for whole allocations: a point an allocation, a line
    through the highest reward so far; a colour a method. Rewards are compared within a search, whose weights are one.
    """
    figure, axes = canvas(2.6)
    colours = _colours(rows, "method", methods)
    for _, of_run in groupby(rows, key=lambda row: row["run"]):
        own = [row for row in of_run if math.isfinite(row["reward"])]
        tokens, rewards = [row["tokens"] for row in own], [row["reward"] for row in own]
        colour = colours[own[0]["method"]] if own else INK
        axes.plot(tokens, list(accumulate(rewards, max)), color=colour, drawstyle="steps-post")
        step = max(1, -(-len(own) // POINTS))
        axes.plot(tokens[::step], rewards[::step], "o", color=colour, markersize=2, alpha=0.4)
    axes.set_ylabel("reward (higher is better)")
    _tokens_below(axes)
    legend(axes, [_line(colour, name) for name, colour in colours.items()])
    return to_svg(figure, f"reward{number}")


def _colours(rows: Sequence[Row], named: str, others: Sequence[str]) -> dict[str, str]:
    """Of those in `rows`: the same in all figures that are told of the same `others`."""
    own = {row[named] for row in rows}
    return {name: colour for name, colour in colours_of({*own, *others}).items() if name in own}


def _tokens_below(axes: Axes) -> None:
    axes.set_xlabel("tokens looked at")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.short(value)))
    axes.xaxis.set_major_locator(MaxNLocator(4))


@styled
def levels_by_share(rows: Sequence[Row]) -> str:
    """`rows` of queries/levels.sql of one run: a line a part, a colour a kind, the fainter the earlier its block."""
    figure, axes = canvas(3.2)
    colours = dict(zip(HALVES, SERIES, strict=False))
    last = max(row["block"] for row in rows) or 1
    for (block, kind), of_part in groupby(rows, key=lambda row: (row["block"], row["kind"])):
        own = [(row["share"], row["rise"]) for row in of_part if math.isfinite(row["rise"])]
        axes.plot(*zip(*own, strict=True), color=colours[kind], alpha=FAINTEST + (1 - FAINTEST) * block / last)
    axes.set_yscale("symlog", linthresh=LINEAR)
    axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=LINEAR, subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel("rise of the loss alone")
    axes.set_xlabel("share of the part gone")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    legend(axes, [_line(colours[kind], name) for kind, name in HALVES.items()])
    return to_svg(figure, "levels")


def _line(colour: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, label=label)
