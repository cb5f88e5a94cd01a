"""The figures of a report: each a function from stored rows to an <svg> that stands inside the page."""

import math
from collections.abc import Sequence

from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tasks.record.pages import units
from tasks.record.pages.drawing import (
    DASHES,
    FAINT,
    INK,
    PAPER,
    canvas,
    colours_of,
    keys,
    label_rows,
    legend,
    log_scale,
    looks_of,
    rows_height,
    styled,
    to_svg,
)
from tasks.record.pages.tables import Row

BOUGHT = {
    "parameters": "parameters",
    "removed_flops": "FLOPs of the blocks",
    "size_bytes": "bytes on disk",
    "kv_bytes": "cache",
    "prefill_ratio": "prefill speed",
    "decode_ratio": "decode speed",
}


@styled
def perplexity_by_sparsity(rows: Sequence[Row], name: str, gone: str) -> str:
    """`rows` of queries/results.sql for one model and text: a line a method, from the dense model through its
    sparsities, and a dashed one through its n:m patterns. What is not finite cannot be drawn. `gone`: what `sparsity`
    counts."""
    figure, axes = canvas(3.2)
    dense = rows[0]["dense"]["ppl"]
    pruned = [row for row in rows if row["subject"] != "dense" and math.isfinite(row["ppl"])]
    looks = looks_of(row["method"] for row in pruned)
    axes.axhline(dense, color=FAINT, linewidth=1, linestyle=DASHES[2])
    for method, (colour, marker) in looks.items():
        own = sorted((row["sparsity"], row["ppl"], row["pattern"]) for row in pruned if row["method"] == method)
        free = [(0.0, dense), *((sparsity, ppl) for sparsity, ppl, pattern in own if ":" not in pattern)]
        grouped = [(0.0, dense), *((sparsity, ppl) for sparsity, ppl, pattern in own if ":" in pattern)]
        axes.plot(*zip(*free, strict=True), color=colour, marker=marker, markersize=4)
        axes.plot(*zip(*grouped, strict=True), color=colour, linestyle=DASHES[1], linewidth=1)
        for sparsity, ppl, pattern in own:
            if ":" in pattern:
                axes.plot(sparsity, ppl, "D", color=colour, markersize=5, markerfacecolor=PAPER)
                axes.annotate(pattern, (sparsity, ppl), (7, 0), textcoords="offset points", va="center", color=FAINT)
    log_scale(axes)
    axes.set_ylabel("perplexity (lower is better)")
    axes.set_xlabel(gone)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    legend(axes, keys(looks))
    return to_svg(figure, name)


@styled
def speed_by_sparsity(rows: Sequence[Row], name: str) -> str:
    """`rows` of queries/results.sql for timed models with sparse inputs: how fast each decodes against the share of
    the weights that a token does not need, with the 95 % interval; a line a method, 1 is the dense model. The dotted
    line is what would be if reading the weights of the blocks took all of the time."""
    figure, axes = canvas(3.0)
    looks = looks_of(row["method"] for row in rows)
    axes.axhline(1, color=INK, linewidth=1)
    shares = [step / 100 for step in range(math.ceil(100 * max(row["sparsity"] for row in rows)) + 1)]
    axes.plot(shares, [1 / (1 - min(share, 0.99)) for share in shares], color=FAINT, linewidth=1, linestyle=DASHES[2])
    for method, (colour, marker) in looks.items():
        own = sorted((row for row in rows if row["method"] == method), key=lambda row: row["sparsity"])
        axes.plot([row["sparsity"] for row in own], [row["decode_ratio"] for row in own], color=colour, marker=marker)
        for row in own:
            axes.plot([row["sparsity"]] * 2, [row["decode_low"], row["decode_high"]], color=colour, linewidth=1)
    axes.set_ylabel("decode speed relative to dense")
    axes.set_xlabel("weights not read")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    legend(axes, keys(looks))
    return to_svg(figure, name)


@styled
def frontier(rows: Sequence[Row], name: str) -> str:
    """`rows` of queries/results.sql for the cut models of one model and text: perplexity against what is left of each
    cost, and against the speeds where they were timed; a line a method, the dense model a diamond."""
    dense = rows[0]["dense"]
    bought = [field for field in BOUGHT if all(_left(row, field) is not None for row in rows)]
    columns = 2 if len(bought) == 4 else min(3, len(bought))
    lines = math.ceil(len(bought) / columns)
    figure, panels = canvas(1.5 + 1.9 * lines, nrows=lines, ncols=columns, sharey=True, squeeze=False)
    colours = colours_of(row["method"] for row in rows)
    for axes in panels.flat[len(bought) :]:
        axes.set_visible(False)
    for axes, field in zip(panels.flat, bought, strict=False):
        for method, colour in colours.items():
            own = sorted((_left(row, field), row["ppl"]) for row in rows if row["method"] == method)
            axes.plot(*zip(*own, strict=True), color=colour, marker="o", markersize=4)
        axes.plot(1, dense["ppl"], "D", color=INK, markersize=5, markerfacecolor=PAPER)
        axes.set_title(BOUGHT[field], fontsize=9)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
        axes.xaxis.set_major_locator(MaxNLocator(3))
    log_scale(panels[0, 0])
    figure.supylabel("perplexity (lower is better)", fontsize=9)
    figure.supxlabel("what is left, and speed, relative to dense", fontsize=9)
    entries = [Line2D([], [], color=colours[method], marker="o", markersize=4, label=method) for method in colours]
    figure.legend(handles=entries, loc="outside upper left", ncols=2)
    return to_svg(figure, name)


def _left(row: Row, field: str) -> float | None:
    """Relative to the dense model; None where it is not known. The bytes on disk are of all profiles together."""
    if field == "size_bytes" and row["subject"] != "pruned":
        return None
    if field == "removed_flops":
        return None if row[field] is None else 1 - row[field]
    if field in ("prefill_ratio", "decode_ratio"):
        return row[field]
    whole = row["dense"][field]
    return row[field] / whole if row[field] is not None and whole else None


@styled
def error_and_sparsity_by_block(rows: Sequence[Row]) -> str:
    """`rows` of queries/blocks.sql over the model's depth: a panel for the errors, if any were recorded, and one for
    the zeros. Colour is the method, dashes the pattern; a method whose errors were not is named in the other panel."""
    shown = {"error": [row for row in rows if row["error"] is not None], "sparsity": list(rows)}
    shown = {field: found for field, found in shown.items() if found}
    figure, panels = canvas(1 + 1.6 * len(shown), nrows=len(shown), sharex=True, squeeze=False)
    colours = colours_of(row["method"] for row in rows)
    dashes = dict(zip(dict.fromkeys(row["pattern"] for row in rows), DASHES * 8, strict=False))
    unnamed = {row["method"]: Line2D([], [], color=colours[row["method"]], label=row["method"]) for row in rows}
    if len(dashes) > 1:
        unnamed |= {name: Line2D([], [], color=INK, linestyle=dash, label=name) for name, dash in dashes.items()}
    for axes, (field, drawn) in zip(panels[:, 0], shown.items(), strict=True):
        for run in dict.fromkeys(row["run"] for row in drawn):
            own = [row for row in drawn if row["run"] == run]
            look = {"color": colours[own[0]["method"]], "linestyle": dashes[own[0]["pattern"]], "marker": "o"}
            axes.plot([row["block"] for row in own], [row[field] for row in own], markersize=3, **look)
        here = {name for row in drawn for name in (row["method"], row["pattern"])}
        entries = [unnamed.pop(name) for name in [*unnamed] if name in here]
        if entries:
            legend(axes, entries)
    sparsity = panels[-1, 0]
    if "error" in shown:
        panels[0, 0].set_ylabel("relative output error")
        if any(row["error"] for row in rows):
            log_scale(panels[0, 0])
    sparsity.set_ylabel("zeros")
    sparsity.set_ylim(0, 1)
    sparsity.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    sparsity.set_xlabel("block")
    sparsity.xaxis.set_major_locator(MaxNLocator(integer=True))
    return to_svg(figure, "blocks")


@styled
def sizes(rows: Sequence[Row]) -> str:
    """`rows` of queries/results.sql: the weight files on disk."""
    names = ["dense" if row["subject"] == "dense" else f"{row['method']} {row['pattern']}" for row in rows]
    figure, axes = canvas(0.9 + rows_height(names))
    colours = colours_of(row["method"] for row in rows if row["subject"] != "dense")
    for place, row in enumerate(rows):
        size_bytes = row["size_bytes"]
        axes.barh(place, size_bytes, height=0.62, color=FAINT if row["subject"] == "dense" else colours[row["method"]])
        axes.annotate(units.size(size_bytes), (size_bytes, place), (4, 0), textcoords="offset points", va="center")
    label_rows(axes, names)
    axes.set_xlim(0, 1.22 * max(row["size_bytes"] for row in rows))
    axes.set_xlabel("size on disk (shorter is better)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.size(value) if value else "0"))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    return to_svg(figure, "sizes")


@styled
def speeds(rows: Sequence[Row]) -> str:
    """`rows` of queries/speeds.sql: the ratio to the dense model's speed with its 95 % interval, a panel a phase.
    A point is filled where the interval leaves 1 out."""
    phases = list(dict.fromkeys(row["phase"] for row in rows))
    models = list(dict.fromkeys((row["run"], row["method"], row["pattern"]) for row in rows))
    names = [f"{method} {pattern}" for _, method, pattern in models]
    height = 1.1 + rows_height(names)
    figure, panels = canvas(height, ncols=len(phases), sharex=True, sharey=True, squeeze=False)
    colours = colours_of(row["method"] for row in rows)
    for axes, phase in zip(panels[0], phases, strict=True):
        axes.axvline(1, color=INK, linewidth=1)
        for row in rows:
            if row["phase"] == phase:
                place = models.index((row["run"], row["method"], row["pattern"]))
                colour = colours[row["method"]]
                sure = row["verdict"] in ("faster", "slower")
                axes.plot([row["ratio_low"], row["ratio_high"]], [place, place], color=colour, solid_capstyle="butt")
                axes.plot(
                    row["ratio"], place, "o", color=colour, markersize=5, markerfacecolor=colour if sure else PAPER
                )
        axes.set_title(phase, fontsize=9)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
        axes.xaxis.set_major_locator(MaxNLocator(4))
    label_rows(panels[0, 0], names)
    for axes in panels[0, 1:]:
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
    figure.supxlabel("speed relative to dense (right of 1 is faster)", fontsize=9)
    return to_svg(figure, "speeds")
