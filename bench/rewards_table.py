"""The lines of bench.rewards as Markdown: what each weight of the reward buys, and what shuffled rewards teach."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from bench.allocators_table import interval

Line = dict[str, Any]
LEARNING = ("own", "shuffled", "chance")

HEAD = """# What RL-Allocator is paid for

The mean over seeds; a seed draws the windows that calibrate and that are searched on. *accuracy* reads the loss on the
windows of the search, in nats per token, negative; the others the share of the dense model's cost that is saved, *peak*
of the widest activation. *falls* counts the seeds in which a larger weight ever bought less. Below, the loss on windows
held out against uniform levels, with the 95 % interval over seeds (Student's t), where rewards are its own, and where
they belong to other levels, drawn once and for all; *chance* is random search with those. Whoever learns nothing is
as good as chance."""


def markdown(lines_of: Mapping[str, Sequence[Line]]) -> str:
    text = [HEAD]
    for model, lines in lines_of.items():
        start = next(line for line in lines if "command" in line)
        done = [line for line in lines if "cell" in line]
        looks = sorted({line["cell"]["looks"] for line in done})
        text += ["", f"## {model}", "", f"{start['date']}. {', '.join(map(str, looks))} looks. {start['machine']}", ""]
        text += [*_swept(done), "", *_learned(done)]
    return "\n".join(text) + "\n"


def _swept(lines: Sequence[Line]) -> list[str]:
    by_weight: dict[str, dict[int, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines:
        cell = line["cell"]
        if cell["weight"] not in LEARNING:
            by_weight[cell["weight"]][cell["seed"]][cell["value"]] = line["metric"]
    values = sorted({value for seeds in by_weight.values() for each in seeds.values() for value in each})
    text = ["| weight | " + " | ".join(f"{value:g}" for value in values) + " | seeds | falls |"]
    text += ["|---" * (len(values) + 3) + "|"]
    for weight, seeds in by_weight.items():
        whole = [[each[value] for value in values] for each in seeds.values() if len(each) == len(values)]
        means = [f"{mean(column):.4f}" for column in zip(*whole, strict=True)]
        falls = sum(row != sorted(row) for row in whole)
        text.append(f"| {weight} | {' | '.join(means)} | {len(whole)} | {falls} |")
    return text


def _learned(lines: Sequence[Line]) -> list[str]:
    text = ["| rewards | held out, against uniform |", "|---|---|"]
    for weight in LEARNING:
        own = [line["held_out"] - line["uniform"] for line in lines if line["cell"]["weight"] == weight]
        text.append(f"| {weight} | {interval(own)} |")
    return text
