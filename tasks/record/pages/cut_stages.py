"""The section of a page about a model that was cut in stages and trained between them."""

from collections.abc import Callable, Sequence
from itertools import groupby

from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tasks.record.metrics import query_named
from tasks.record.pages import units
from tasks.record.pages.drawing import PAPER, canvas, colours_of, framed, legend, styled, to_svg
from tasks.record.pages.tables import Column, Row, section, to_html

CAPTION = (
    "Loss in nats a token and parameters of the whole model over the tokens trained. A circle is the model as it was "
    "cut, on calibration windows; a line goes from the loss of a stage's first tenth of steps to that of its last."
)


def cut_stages(run: str) -> str:
    """The table of the stages, a run after the other, and how loss and parameters went over them."""
    rows = query_named("cut_stages", run=run)
    if not rows:
        return ""
    figure = f'<div class="figures">{framed(loss_and_parameters(rows), CAPTION)}</div>'
    return section("Stages of cutting and training", to_html(_columns(rows), rows, "Stages", _caption(rows)), figure)


def _columns(rows: Sequence[Row]) -> list[Column]:
    several = len({row["run"] for row in rows}) > 1
    return [
        *([Column(title="Method", show=lambda row: row["method"], numeric=False)] if several else []),
        Column(title="Stage", show=lambda row: str(row["stage"]), heads_row=True),
        Column(title="Parameters", show=_parameters, note=_beside_target),
        Column(title="Loss, cut", show=lambda row: units.digits(row["calibration_loss"])),
        Column(
            title="Tokens", show=lambda row: units.count(row["tokens"]), note=lambda row: units.percent(row["share"])
        ),
        Column(title="Rate", show=lambda row: _span(row, "rate_from", "rate_to", units.scientific)),
        Column(title="Loss, trained", show=lambda row: _span(row, "first_loss", "last_loss", units.digits)),
        Column(title="Time", show=lambda row: units.seconds(row["seconds"])),
    ]


def _parameters(row: Row) -> str:
    return f"{units.count(row['parameters_before'])} → {units.count(row['parameters'])}"


def _beside_target(row: Row) -> str:
    return f"{row['parameters'] - row['target']:+,}"


def _span(row: Row, first: str, last: str, show: Callable[[float | None], str]) -> str:
    return f"{show(row[first])} → {show(row[last])}"


def _caption(rows: Sequence[Row]) -> str:
    furthest = max(abs(row["parameters"] - row["target"]) for row in rows)
    return (
        "Each stage scores the units anew, cuts, repairs and trains on. Beside the parameters stands what they are off "
        f"their target, {units.count(furthest)} at most, as units go whole; losses in nats a token."
    )


@styled
def loss_and_parameters(rows: Sequence[Row]) -> str:
    """`rows` of queries/cut_stages.sql: a panel for each over the tokens trained; a colour a method."""
    figure, (losses, parameters) = canvas(4.2, nrows=2, sharex=True, height_ratios=(3, 2))
    colours = colours_of(row["method"] for row in rows)
    for _, of_run in groupby(rows, key=lambda row: row["run"]):
        own = list(of_run)
        colour = colours[own[0]["method"]]
        for row in own:
            span = (row["tokens_before"], row["tokens_before"] + row["tokens"])
            losses.plot(span, (row["first_loss"], row["last_loss"]), color=colour)
            losses.plot(span[0], row["calibration_loss"], "o", color=colour, markersize=5, markerfacecolor=PAPER)
        ends = [row["tokens_before"] + row["tokens"] for row in own]
        parameters.stairs([row["parameters"] for row in own], [0, *ends], color=colour, baseline=None, linewidth=1.6)
        parameters.plot(0, own[0]["parameters_before"], "D", color=colour, markersize=5, markerfacecolor=PAPER)
    losses.set_ylabel("loss (lower is better)")
    parameters.set_ylabel("parameters")
    parameters.set_ylim(0, 1.15 * max(row["parameters_before"] for row in rows))
    parameters.set_xlabel("tokens trained")
    for axis in (parameters.xaxis, parameters.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: units.short(value)))
        axis.set_major_locator(MaxNLocator(4))
    legend(losses, [Line2D([], [], color=colours[method], label=method) for method in colours])
    return to_svg(figure, "cutstages")
