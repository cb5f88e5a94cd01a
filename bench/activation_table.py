"""The lines of bench.activation as Markdown: for each model and set of linears, perplexity by pattern and method."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from bench.spread import digits, spread

INPUTS, WEIGHTS = "inputs", "weights"
ADDING = "rsparse"  # to what every token reads
ONCE = ("none", "var", "dpts", "magnitude")  # run: they see no windows
BY_GROUPS = ("16:32", "8:16", "4:8", "2:4")  # the more inputs are chosen from together, the less is lost

Line = dict[str, Any]
Column = tuple[str, str]  # what is sparse, method
Found = dict[str, dict[Column, list[Line]]]  # by pattern and column, a line for each seed

HEAD = """# Sparse inputs beside sparse weights

Perplexity, mean ± standard deviation over the seeds that draw the calibration windows (in brackets how many, where
they are not three; what sees no windows is run once). *inputs*: each token's inputs of a linear are chosen by
magnitude, and what the head of a column names makes up for the others: *var* and *dpts* without training, *spts*,
*lpts*, *ls* and *rsparse* trained block by block, and left in whether the loss fell or not (`espalier activation`
keeps what was learned only where it fell on windows held out). *weights*: the same linears pruned by the same pattern
within a row, as the method leaves them. *gone*: the share of all weights of the blocks that a token does not need;
*rsparse* has factors that every token reads, so what is gone net of them stands in its cells. Bold: the lowest of a
pattern, of those for which as much is gone. *energy*: what the chosen inputs keep of the squares of all, the mean
over inputs, without anything that makes up for the others."""


def markdown(lines_of: Mapping[str, Sequence[Line]]) -> str:
    text = [HEAD]
    for model, lines in lines_of.items():
        text += ["", *_model(model, lines)]
    return "\n".join(text) + "\n"


def _model(model: str, lines: Sequence[Line]) -> list[str]:
    start = next(line for line in lines if "dense" in line)
    dense = start["dense"]
    text = [
        f"## {model}: dense {dense['ppl']:.3f}",
        "",
        f"{start['calibration']}; {dense['tokens']} tokens scored in {dense['windows']} windows. {start['date']},",
        f"`{start['command']}`, threads: {start['threads']}; training by {start['learn']}.",
        f"Machine: {start['machine']}.",
        *dict.fromkeys(f"Not run: {line['refused']}." for line in lines if "refused" in line),
    ]
    for modules in dict.fromkeys(line["cell"]["modules"] for line in lines if "ppl" in line and "cell" in line):
        found = _gather(lines, modules)
        text += ["", f"### {model}, linears: {modules}", "", *_table(found, dense["ppl"]), "", *_order(found)]
        text += _held_out(found)
    return text


def _gather(lines: Sequence[Line], modules: str) -> Found:
    found: Found = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if "ppl" in line and "cell" in line and line["cell"]["modules"] == modules:
            cell = line["cell"]
            found[cell["pattern"]][cell["sparse"], cell["method"]].append(line)
    return found


def _columns(found: Found) -> list[Column]:
    """Inputs before weights, and otherwise as they were run."""
    every = dict.fromkeys(column for of_pattern in found.values() for column in of_pattern)
    return sorted(every, key=lambda column: column[0] == WEIGHTS)


def _table(found: Found, dense: float) -> list[str]:
    columns = _columns(found)
    head = ["pattern", "gone", "energy", *(f"{sparse}, {method}" for sparse, method in columns)]
    rows = [["dense", "0.0%", "1.000", *[f"{dense:.2f}"] * len(columns)]]
    for pattern, of_pattern in found.items():
        alike = [lines for (_, method), lines in of_pattern.items() if method != ADDING]
        lowest = min(map(_ppl, alike), default=0.0)
        plain = of_pattern.get((INPUTS, "none"))
        energy = f"{plain[0]['energy_kept']:.3f}" if plain else ""
        gone = [line["sparsity"] for lines in alike for line in lines]
        shown = (_show(column, of_pattern.get(column, []), lowest) for column in columns)
        rows.append([pattern, f"{mean(gone):.1%}" if gone else "", energy, *shown])
    rules = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, rules, *rows)]


def _show(column: Column, lines: Sequence[Line], lowest: float) -> str:
    if not lines:
        return ""
    text = digits(_ppl(lines), _ppl(lines)) if column[1] in ONCE else spread([line["ppl"] for line in lines])
    if column[1] == ADDING:
        return f"{text} at {mean(line['sparsity'] for line in lines):.0%}"
    return f"**{text}**" if _ppl(lines) == lowest else text


def _order(found: Found) -> list[str]:
    """Whether the more inputs are chosen from together, the lower the perplexity: of whom, and of whom not."""
    ordered: dict[bool, list[str]] = {True: [], False: []}
    for sparse, method in _columns(found):
        lines = [found[pattern][sparse, method] for pattern in BY_GROUPS if (sparse, method) in found.get(pattern, {})]
        if len(lines) == len(BY_GROUPS):
            ppls = [_ppl(each) for each in lines]
            ordered[ppls == sorted(ppls)].append(f"{sparse}, {method}")
    said = " better than ".join(BY_GROUPS)
    holds = [f"{said} holds of {'; '.join(ordered[True])}."] if ordered[True] else []
    return holds + ([f"{said} does not hold of {'; '.join(ordered[False])}."] if ordered[False] else [])


def _held_out(found: Found) -> list[str]:
    """Of each method that learns, in how many runs the loss on text not learned on fell, and where it did not."""
    runs: dict[str, list[Line]] = defaultdict(list)
    for of_pattern in found.values():
        for (_, method), lines in of_pattern.items():
            runs[method] += [line for line in lines if "learned" in line]
    said = []
    for method, lines in runs.items():
        if lines:
            risen = dict.fromkeys(line["cell"]["pattern"] for line in lines if not line["learned"]["fell"])
            fell = sum(line["learned"]["fell"] for line in lines)
            change = mean(line["learned"]["nll_to"] - line["learned"]["nll_from"] for line in lines)
            where = f"; not in all at {', '.join(risen)}" if risen else ""
            said.append(f"- {method}: in {fell} of {len(lines)} runs, by {change:+.3f} nats on average{where}")
    return ["", "By training, the loss on text that was not learned on fell:", "", *said] if said else []


def _ppl(lines: Sequence[Line]) -> float:
    return mean(line["ppl"] for line in lines)
