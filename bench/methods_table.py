"""The lines of bench.methods as Markdown: for each model, perplexity as mean ± standard deviation over the seeds."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from bench.spread import spread
from bench.texts import WINDOWS

Line = dict[str, Any]
Key = tuple[str, str, bool]  # pattern, method, permuted


def markdown(lines_of: Mapping[str, Sequence[Line]]) -> str:
    text = [
        "# Every method, pattern, update and order of inputs",
        "",
        "Perplexity of the pruned model, mean ± standard deviation over the seeds that draw the calibration windows",
        "(in brackets how many, where they are not three). What becomes of the weights that stay: *none*, nothing",
        "(SparseGPT's choice without its sweep); *sweep*, SparseGPT's; *refit*, exact least squares; *drift*, the",
        "refit half-way towards the dense model's outputs, group by group; *tuned*, that refit by block, then each",
        "block reconstructed; *owl*, as the method leaves them, each block with a sparsity of its own; *low rank*, a",
        "quarter of the pattern's bytes in two factors. A pattern with *p*: the inputs of each linear were permuted.",
        "Bold: the lowest of its pattern. The seconds are of a machine with other work, and no comparison of speed.",
    ]
    for model, lines in lines_of.items():
        text += ["", *_model(model, lines)]
    return "\n".join(text) + "\n"


def _model(model: str, lines: Sequence[Line]) -> list[str]:
    starts = [line for line in lines if "dense" in line]
    found: dict[Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    seconds: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        if "ppl" in line and "cell" in line:
            cell, step = line["cell"], _step(line["cell"])
            found[cell["pattern"], cell["method"], cell["permute"]][step].append(line["ppl"])
            seconds[step].append(line["seconds"])
    order = list(starts[-1]["steps"])
    steps = sorted(seconds, key=lambda step: (order.index(step.partition(", ")[0]), step))
    dense, calibration = starts[0]["dense"], starts[0]["calibration"]
    lowest: dict[tuple[str, bool], float] = {}
    for (pattern, _, permute), of_step in found.items():
        best = min(mean(ppls) for ppls in of_step.values())
        lowest[pattern, permute] = min(best, lowest.get((pattern, permute), best))

    def show(key: Key, step: str) -> str:
        ppls = found[key].get(step, [])
        if not ppls:
            return ""
        return f"**{spread(ppls)}**" if mean(ppls) == lowest[key[0], key[2]] else spread(ppls)

    return [
        f"## {model}: dense {dense['ppl']:.3f}",
        "",
        f"{calibration}; {dense['tokens']} tokens scored in {dense['windows']} windows. {starts[0]['date']},",
        f"`{starts[0]['command']}`, threads: {starts[0]['threads']}. Machine: {starts[0]['machine']}.",
        "",
        f"| pattern | method | {' | '.join(steps)} |",
        f"| --- | --- | {' | '.join('---:' for _ in steps)} |",
        *(
            f"| {pattern}{' p' if permute else ''} | {method} | "
            f"{' | '.join(show((pattern, method, permute), step) for step in steps)} |"
            for pattern, method, permute in sorted(found, key=_position(found))
        ),
        "",
        "Seconds of pruning, on average: " + ", ".join(f"{step} {mean(seconds[step]):.1f}" for step in steps) + ".",
        *dict.fromkeys(f"Not run: {line['refused']}." for line in lines if "refused" in line),
    ]


def _step(cell: Mapping[str, Any]) -> str:
    """The column of a cell: its step, and how many windows calibrated it where they are not as many as usual."""
    windows = cell.get("windows", WINDOWS)
    return cell["step"] if windows == WINDOWS else f"{cell['step']}, {windows} windows"


def _position(found: Mapping[Key, object]) -> Any:
    """Patterns and methods as they were run, a pattern with permuted inputs after the same without."""
    patterns = list(dict.fromkeys(pattern for pattern, _, _ in found))
    methods = list(dict.fromkeys(method for _, method, _ in found))
    return lambda key: (patterns.index(key[0]), key[2], methods.index(key[1]))
