"""The lines of bench.allocators as Markdown: by model and problem, what each allocator saves of uniform's loss."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np
from scipy.stats import t

Line = dict[str, Any]
SPENT = ("tokens", "forwards", "hits", "seconds")
PAIRS = (("rl", "evolution"), ("rl", "uniform"), ("rl", "adapt"), ("refine", "adapt"), ("auto", "uniform"))

HEAD = """# Allocators side by side

Nats per token on windows of text held out: the difference to uniform levels of the same budget, the mean over seeds
with its 95 % interval (Student's t), below zero where the allocator is better; a seed draws the windows that calibrate
and that are searched on. A look is one candidate's loss on all windows of the search; the slopes of all parts, from a
backward pass, count as three. Columns are the most looks that an allocator may take; what it was asked for before costs
it nothing. *uniform* and *adapt* take none. *auto* divides its looks between the others. Tokens, looks that took the
model and looks that were known (held out ones among them) and seconds are of a whole search at the most looks, medians;
a loss that another allocator had measured before came from the cache. Of weights
the search looks at zeros alone; below it stands what is left of the difference once the model is pruned block by
block and its weights are refitted."""


def markdown(lines_of: Mapping[str, Sequence[Line]]) -> str:
    text = [HEAD]
    for model, lines in lines_of.items():
        start = next(line for line in lines if "dense" in line and "cell" not in line)
        text += [
            "",
            f"## {model}",
            "",
            f"{start['date']}. Machine: {start['machine']}. {start['searched']} windows a look,",
        ]
        text += [f"{start['held_out']} held out; units by {start['importance']}, weights by {start['pruner']}."]
        by_problem = defaultdict(list)
        for line in lines:
            if "held_out" in line and "cell" in line:
                by_problem[line["cell"]["problem"]].append(line)
        for problem, own in by_problem.items():
            text += ["", *_problem(problem, own)]
    return "\n".join(text) + "\n"


def _problem(problem: str, lines: Sequence[Line]) -> list[str]:
    looks = sorted({line["cell"]["looks"] for line in lines})
    dense, uniform = mean(line["dense"] for line in lines), mean(line["uniform"] for line in lines)
    found: dict[str, dict[int, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        found[line["cell"]["allocator"]][line["cell"]["looks"]].append(line)
    text = [f"### {problem}: dense {dense:.4f}, uniform {uniform:.4f}", ""]
    text += [*_side_by_side(found, looks, "held_out", "uniform"), "", *_pairs(found, "held_out")]
    if weights := [line["refitted_uniform"] for line in lines if "refitted" in line]:
        refitted = mean(weights)
        text += ["", f"Pruned by what was found, and refitted: uniform {refitted:.4f}", ""]
        text += [*_side_by_side(found, looks, "refitted", "refitted_uniform"), "", *_pairs(found, "refitted")]
    return text


def _side_by_side(
    found: Mapping[str, Mapping[int, Sequence[Line]]], looks: Sequence[int], loss: str, of: str
) -> list[str]:
    """Each allocator's `loss` less that `of` uniform levels."""
    text = [
        "| allocator | " + " | ".join(f"{each} looks" for each in looks) + " | tokens | forwards | hits | s |",
        "|---" * (len(looks) + 5) + "|",
    ]
    for allocator, by_looks in found.items():
        cells = [interval([line[loss] - line[of] for line in by_looks.get(each, []) if loss in line]) for each in looks]
        spent = [np.median([line[of_search] for line in by_looks[max(by_looks)]]) for of_search in SPENT]
        text.append(f"| {allocator} | {' | '.join(cells)} | {' | '.join(f'{each:,.0f}' for each in spent)} |")
    return text


def _pairs(found: Mapping[str, Mapping[int, Sequence[Line]]], loss: str) -> list[str]:
    """Who is judged by whom, seed by seed: at the fewest looks of both, or at the most of evolution."""
    text = [f"| one less the other, seed by seed | {loss.replace('_', ' ')} |", "|---|---|"]
    for one, other in PAIRS:
        if not (found[one] and found[other]):
            continue
        few, many = min(found[one]), max(found[other]) if other == "evolution" else min(found[other])
        of_one, of_other = (
            {line["cell"]["seed"]: line[loss] for line in found[each][looks]}
            for each, looks in ((one, few), (other, many))
        )
        differences = [of_one[seed] - of_other[seed] for seed in sorted(of_one.keys() & of_other.keys())]
        text.append(f"| {one}, {few} looks, less {other}, {many} | {interval(differences)} |")
    return text


def interval(differences: Sequence[float]) -> str:
    if not differences:
        return ""
    if len(differences) == 1:
        return f"{differences[0]:+.4f} (1)"
    half = t.ppf(0.975, len(differences) - 1) * np.std(differences, ddof=1) / len(differences) ** 0.5
    return f"{mean(differences):+.4f} ± {half:.4f}"
