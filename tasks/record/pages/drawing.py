"""How every figure is drawn: one style, colours that are the page's own, and an <svg> that repeats to the byte.

Text stays text and takes the page's font; colours become CSS variables, so that a figure is as legible in the dark and
on paper as the words around it.
"""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

# Matplotlib takes colours only as colours: these stand for CSS variables until the SVG is written.
INK, FAINT, RULE, PAPER = "#00000a", "#00000b", "#00000c", "#00000d"
SERIES = [f"#0000a{number}" for number in range(1, 9)]
VARIABLES = {INK: "--ink", FAINT: "--faint", RULE: "--rule", PAPER: "--paper"}
VARIABLES |= {colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)}
DASHES: list[Any] = ["-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (8, 3)), (0, (3, 1, 1, 1, 1, 1))]
FOLD = 28  # characters of a line in a label
LINE, LINES = 0.17, 4  # inches of a line of a legend, and how many a figure has room for as it is
MARKERS = ("o", "s", "^", "D")
WIDTH = 4.7  # inches of 72 CSS points: one column on a phone, half the page on a screen
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "legend.columnspacing": 1.4,
}
styled = matplotlib.rc_context(STYLE)  # decorates a function that draws


def canvas(height: float, **panels: Any) -> tuple[Figure, Any]:
    """A figure `height` inches high and its axes; `panels` are those of Figure.subplots."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(**panels)


class Look(NamedTuple):
    """Of a method: two look alike only where there are more than four times eight."""

    colour: str
    marker: str


def looks_of(methods: Iterable[str]) -> dict[str, Look]:
    """As `colours_of`; where the colours begin anew, the markers are others."""
    colours = colours_of(methods)
    return {
        method: Look(colour, MARKERS[number // len(SERIES) % len(MARKERS)])
        for number, (method, colour) in enumerate(colours.items())
    }


def colours_of(methods: Iterable[str]) -> dict[str, str]:
    """Method -> colour, given out in the alphabet's order, so that all figures of a page agree."""
    return dict(zip(sorted(set(methods)), SERIES * 8, strict=False))


def folded(label: str) -> str:
    """A long name of a method in several lines, which begin behind a + or a comma."""
    return fill(re.sub(r"([+,])", r"\1 ", label), FOLD).replace("+ ", "+").replace(", ", ",")


def rows_height(labels: Iterable[str]) -> float:
    """Inches for these lines, of which the tallest decides: all are equally far apart."""
    lines = [folded(label).count("\n") + 1 for label in labels]
    return len(lines) * max(0.26, 0.16 * max(lines, default=1))


def label_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Make the vertical axis a list of lines, read from the top down."""
    axes.set_yticks(range(len(labels)), [folded(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)


def log_scale(axes: Axes) -> None:
    """A logarithmic vertical axis with plain numbers at 1, 2 and 5 of each power of ten."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def legend(axes: Axes, entries: Sequence[Line2D]) -> None:
    """A legend above the axes, which hides nothing: the figure grows by what takes more than a few lines."""
    short = all(len(str(entry.get_label())) <= FOLD // 2 for entry in entries)
    columns = 3 if short else 1 if len(entries) <= 2 * LINES else 2
    labels = [folded(str(entry.get_label())) for entry in entries]
    narrow: dict[str, Any] = {"fontsize": 8, "columnspacing": 0.6, "handlelength": 1.6} if columns == 2 else {}
    axes.legend(entries, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, **narrow)
    lines = sum(label.count("\n") + 1 for label in labels) / columns
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.set_figheight(figure.get_figheight() + LINE * max(0.0, lines - LINES))


def keys(looks: Mapping[str, Look]) -> list[Line2D]:
    """Of each method what a legend shows."""
    return [
        Line2D([], [], color=look.colour, marker=look.marker, markersize=4, label=each) for each, look in looks.items()
    ]


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element; `name` keeps the ids of several figures on one page apart."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"; font-family: [^;\"]*", "", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg


def framed(svg: str, caption: str) -> str:
    """A figure with its caption, which is also what is said of it to a reader who hears the page."""
    labelled = svg.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)
    return f"<figure>{labelled}<figcaption>{escape(caption)}</figcaption></figure>"


def standalone(svg: str) -> str:
    """A figure of a page as an image of its own, in the light colours of page.css."""
    style = resources.files("tasks.record.pages").joinpath("page.css").read_text(encoding="utf-8")
    light = dict(reversed(re.findall(r"(--[\w-]+):\s*(#\w+)", style)))  # of two definitions the first is the light one
    svg = re.sub(r"var\((--[\w-]+)\)", lambda variable: light[variable[1]], svg)
    return svg.replace("<svg", f'<svg style="background: {light["--paper"]}"', 1)
