"""The lines of bench.slices as Markdown: for each model and cut, perplexity as mean ± standard deviation over seeds."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from bench.slices_cuts import CUTS, FFN, KINDS
from bench.slices_torch_pruning import CUTS as PEER_CUTS
from bench.spread import spread

SHORT = dict(zip(PEER_CUTS, ("all widths", "hidden width kept"), strict=True))

Line = dict[str, Any]
Row = tuple[str, str]  # importance, what was done
Found = dict[str, dict[Row, dict[float, list[float]]]]  # by cut and row, at each budget the perplexities

HEAD = """# Sliced models, and torch-pruning's

Perplexity of the smaller model, mean ± standard deviation over the seeds that draw the calibration windows (in
brackets how many, where they are not three). *cut*: units removed; *repaired*: the linears that read them fitted by
least squares; *recovered*: then trained, distilled from the dense model on the text that calibrates, at a rate that
was not tuned. Bold: the lowest of its budget in its table. Below each table stands the share that was really removed
from the blocks: widths come in steps, head groups whole.

torch-pruning runs with the settings of its own example for language models, on the same windows, at the ratio that
removes from the blocks what is nearest to the budget. As in that example the hidden width is cut too, so its model is
smaller than ours outside the blocks; a second cut keeps that width. It has no repair. Where query heads share KV
heads it cuts query heads alone, and none where its own check refuses the step."""


def markdown(lines_of: Mapping[str, Sequence[Line]]) -> str:
    text = [HEAD]
    for model, lines in lines_of.items():
        text += ["", *_model(model, lines)]
    return "\n".join(text) + "\n"


def _model(model: str, lines: Sequence[Line]) -> list[str]:
    start = next(line for line in lines if "dense" in line)
    dense = start["dense"]
    found, removed = _gather(lines)
    text = [
        f"## {model}: dense {dense['ppl']:.3f}",
        "",
        f"{start['calibration']}; {dense['tokens']} tokens scored in {dense['windows']} windows. {start['date']},",
        f"threads: {start['threads']}; widths of FFNs in steps of {start['round_to']}. Machine: {start['machine']}.",
        *dict.fromkeys(f"Not run: {line['cell']['cut']}: {line['not_run']}." for line in lines if "not_run" in line),
    ]
    for cut in [cut for cut in (*CUTS, *PEER_CUTS) if cut in found]:
        of = "channels" if cut == FFN else "parameters of the blocks"
        text += ["", f"### {cut}: shares of the {of}", "", *_table(found[cut], removed[cut])]
    if beside := _beside(found, dense["nll"]):
        text += [
            "",
            "### torch-pruning's lowest, and ours repaired: how many times nearer in ln(ppl / dense)",
            "",
            *beside,
        ]
    return text


def _gather(lines: Sequence[Line]) -> tuple[Found, dict[str, dict[float, list[float]]]]:
    """The perplexities, and the shares removed, by cut and budget."""
    found: Found = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    removed: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if "ppl" in line:
            cell = line["cell"]
            done = "repaired" if cell["repair"] else "cut"
            if cell["recover_tokens"]:
                done += f", {cell['recover_tokens']:,} tokens recovered"
            found[cell["cut"]][cell["importance"], done][cell["budget"]].append(line["ppl"])
            removed[cell["cut"]][cell["budget"]].append(line["removed"])
    return found, removed


def _table(rows: Mapping[Row, Mapping[float, Sequence[float]]], removed: Mapping[float, Sequence[float]]) -> list[str]:
    budgets = sorted(removed)
    lowest = {budget: min(mean(at[budget]) for at in rows.values() if budget in at) for budget in budgets}
    return [
        f"| importance | | {' | '.join(f'{budget:.0%}' for budget in budgets)} |",
        f"| --- | --- | {' | '.join('---:' for _ in budgets)} |",
        *(
            f"| {importance} | {done} | "
            f"{' | '.join(_show(at[budget], lowest[budget]) if budget in at else '' for budget in budgets)} |"
            for (importance, done), at in _ordered(rows)
        ),
        "",
        "Removed from the blocks: " + ", ".join(_span(removed[budget]) for budget in budgets) + ".",
    ]


def _ordered(rows: Mapping[Row, Mapping[float, Sequence[float]]]) -> list[tuple[Row, Mapping[float, Sequence[float]]]]:
    """The rows of an importance together, in the order in which they were run."""
    importances = list(dict.fromkeys(importance for importance, _ in rows))
    return sorted(rows.items(), key=lambda row: importances.index(row[0][0]))


def _beside(found: Found, dense_nll: float) -> list[str]:
    """A line per budget: torch-pruning's, then each cut of ours with how many times nearer it is in ln(ppl / dense)."""
    ours = [cut for cut in KINDS if cut in found]
    budgets = sorted({budget for cut in PEER_CUTS for at in found.get(cut, {}).values() for budget in at})
    lines = [
        f"| budget | torch-pruning | {' | '.join(f'ours, {cut}' for cut in ours)} |",
        f"| ---: | --- | {' | '.join('---' for _ in ours)} |",
    ]
    for budget in budgets:
        peer = _best(found, PEER_CUTS, "cut", budget)
        if peer is not None:
            cells = [_nearer(_best(found, [cut], "repaired", budget), peer[0], dense_nll) for cut in ours]
            lines.append(f"| {budget:.0%} | {peer[0]:.2f}, {peer[1]} | {' | '.join(cells)} |")
    return lines if budgets and ours else []


def _nearer(best: tuple[float, str] | None, peer: float, dense_nll: float) -> str:
    if best is None:
        return ""
    times = (math.log(peer) - dense_nll) / (math.log(best[0]) - dense_nll)
    return f"{best[0]:.2f}, {best[1]}: {times:.2f}x"


def _best(found: Found, cuts: Sequence[str], done: str, budget: float) -> tuple[float, str] | None:
    """The lowest mean, and whose it is; None where nothing of it was run."""
    means = [
        (mean(at[budget]), importance if len(cuts) == 1 else f"{importance}, {SHORT[cut]}")
        for cut in cuts
        for (importance, what), at in found.get(cut, {}).items()
        if what == done and budget in at
    ]
    return min(means, default=None)


def _show(ppls: Sequence[float], lowest: float) -> str:
    return f"**{spread(ppls)}**" if mean(ppls) == lowest else spread(ppls)


def _span(shares: Sequence[float]) -> str:
    low, high = f"{min(shares):.1%}", f"{max(shares):.1%}"
    return low if low == high else f"{low} to {high}"
