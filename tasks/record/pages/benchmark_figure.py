"""The figure of benchmarks: a line a task and metric, a dot a model, an upright stroke where chance is."""

from collections.abc import Sequence

from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from tasks.record.pages.drawing import FAINT, INK, SERIES, canvas, label_rows, legend, rows_height, styled, to_svg
from tasks.record.pages.tables import Row

MODELS = {"dense": ("dense", "dense_stderr", FAINT, -0.15), "value": ("the model", "stderr", SERIES[0], 0.15)}


@styled
def scores_beside_chance(rows: Sequence[Row], name: str) -> str:
    """`rows` of queries/benchmarks.sql that have a chance; the bars are two standard errors to both sides."""
    labels = [f"{row['task']} {row['metric']}" for row in rows]
    figure, axes = canvas(0.8 + rows_height(labels))
    entries = []
    for column, (label, error, colour, lower) in MODELS.items():
        own = [(place + lower, row) for place, row in enumerate(rows) if row[column] is not None]
        for place, row in own:
            axes.plot(row[column], place, "o", color=colour, markersize=4.5)
            if row[error] is not None:
                ends = [row[column] - 2 * row[error], row[column] + 2 * row[error]]
                axes.plot(ends, [place] * 2, color=colour, linewidth=1.2)
        if own:
            entries.append(Line2D([], [], color=colour, marker="o", markersize=4.5, label=label))
    for place, row in enumerate(rows):
        axes.plot([row["chance"]] * 2, [place - 0.35, place + 0.35], color=INK, linewidth=1)
    label_rows(axes, labels)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    legend(axes, entries)
    return to_svg(figure, name)
