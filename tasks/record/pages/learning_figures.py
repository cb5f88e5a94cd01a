"""The figures of how a run-time controller learned, what that brought, and what it then chose."""

from collections.abc import Sequence
from itertools import accumulate, groupby

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tasks.record.pages import units
from tasks.record.pages.drawing import (
    DASHES,
    INK,
    PAPER,
    canvas,
    colours_of,
    label_rows,
    legend,
    rows_height,
    styled,
    to_svg,
)
from tasks.record.pages.tables import Row

HELD_OUT = Line2D([], [], color=INK, linestyle=DASHES[1], label="on the test prompts")


@styled
def reward_by_step(rows: Sequence[Row]) -> str:
    """`rows` of queries/learning.sql of one floor: the reward of choosing greedily, a colour a learner; the mean over
    its seeds, with the range of them. Dashed on the test prompts, which nobody learns from."""
    figure, axes = canvas(2.8)
    colours = colours_of(row["learner"] for row in rows)
    for learner, colour in colours.items():
        for field, dash in (("reward", DASHES[0]), ("held_out_reward", DASHES[1])):
            steps, low, mean, high = _over_seeds(rows, learner, field)
            axes.plot(steps, mean, color=colour, linestyle=dash)
            if field == "reward":
                axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_ylabel("reward (higher is better)")
    axes.set_xlabel("trials")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.short(value)))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    legend(axes, [*(_line(colour, learner) for learner, colour in colours.items()), HELD_OUT])
    return to_svg(figure, "reward")


@styled
def cumulative_reward(rows: Sequence[Row]) -> str:
    """`rows` of queries/rewards.sql of one floor: what each policy gained over dense up to each test prompt."""
    figure, axes = canvas(2.8)
    colours = colours_of(row["policy"] for row in rows)
    for policy, of_policy in groupby(sorted(rows, key=lambda row: row["policy"]), key=lambda row: row["policy"]):
        gained = list(accumulate(row["reward"] for row in sorted(of_policy, key=lambda row: row["place"])))
        axes.plot(range(1, len(gained) + 1), gained, color=colours[policy])
    axes.set_ylabel("reward over dense, added up")
    axes.set_xlabel("test prompts answered")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    legend(axes, [_line(colour, policy) for policy, colour in colours.items()])
    return to_svg(figure, "cumulative")


@styled
def epsilon_by_step(rows: Sequence[Row]) -> str:
    """`rows` of queries/learning.sql: of learners that draw actions the share that is drawn."""
    figure, axes = canvas(2.2)
    drawing = {row["learner"] for row in rows if row["epsilon"] is not None}
    colours = {name: colour for name, colour in colours_of(row["learner"] for row in rows).items() if name in drawing}
    for learner, colour in colours.items():
        steps, _, mean, _ = _over_seeds(rows, learner, "epsilon")
        axes.plot(steps, mean, color=colour)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("actions drawn")
    axes.set_xlabel("trials")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.short(value)))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    legend(axes, [_line(colour, learner) for learner, colour in colours.items()])
    return to_svg(figure, "epsilon")


@styled
def action_use(rows: Sequence[Row]) -> str:
    """`rows` of queries/uses.sql, not live: a bar a policy and floor, of the shares that each action has of it."""
    names = list(dict.fromkeys((row["policy"], row["floor"]) for row in rows))
    labels = [f"{policy}, {100 * floor:g} %" for policy, floor in names]
    colours = colours_of(row["action"] for row in rows)
    figure, axes = canvas(1.0 + rows_height(labels) + 0.16 * len(colours) / 3)
    for place, name in enumerate(names):
        reached = 0.0
        own = sorted((row for row in rows if (row["policy"], row["floor"]) == name), key=lambda row: row["action"])
        for row in own:
            look = {"color": colours[row["action"]], "edgecolor": PAPER, "linewidth": 0.5}
            axes.barh(place, row["share"], left=reached, height=0.62, **look)
            reached += row["share"]
    label_rows(axes, labels)
    axes.set_xlim(0, 1)
    axes.set_xlabel("decisions")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    legend(axes, [_block(colour, action) for action, colour in colours.items()])
    return to_svg(figure, "use")


def _over_seeds(rows: Sequence[Row], learner: str, field: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The steps at which a learner was looked at, and the lowest, mean and highest value of its seeds there."""
    looked = sorted((row["step"], row[field]) for row in rows if row["learner"] == learner and row[field] is not None)
    by_step = {step: [value for _, value in own] for step, own in groupby(looked, key=lambda look: look[0])}
    return (
        np.array([*by_step]),
        np.array([min(own) for own in by_step.values()]),
        np.array([sum(own) / len(own) for own in by_step.values()]),
        np.array([max(own) for own in by_step.values()]),
    )


def _line(colour: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, label=label)


def _block(colour: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, marker="s", markersize=6, linestyle="", label=label)
