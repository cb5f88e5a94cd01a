"""`python -m bench.allocators`: what allocators find at equal looks, beside uniform levels, on windows held out.

A seed draws the windows that calibrate and, others, those that are searched on; the held-out ones are of other texts.
Each finished search is a line of `<results>/allocators-<model>.jsonl`; a search whose line is there already is not done
again, so the benchmark can be stopped and started at any moment. `--table` writes allocators.md from the lines alone.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from statistics import fmean
from typing import Any

from torch import Tensor

from bench.allocators_table import markdown
from bench.cells import left, run_cells
from bench.lines import add_options, file_of_lines, run_models
from bench.texts import MODELS, WINDOW, Text, add_line, circumstances, present, read_text
from tasks.calibrate.importance import IMPORTANCES
from tasks.data.tokens import sample_windows
from tasks.evaluate.perplexity import perplexity
from tasks.model.load import load_model
from tasks.prune import PRUNERS
from tasks.prune.structure.cut import Cut
from tasks.prune.weight.apply import prune_model
from tasks.prune.weight.pattern import Pattern, parse_pattern
from tasks.prune.weight.refit import Refit
from tasks.train_controller.allocators import SEARCHERS
from tasks.train_controller.allocators.features import block_features, features_of
from tasks.train_controller.allocators.judge import ModelJudge, Windows
from tasks.train_controller.allocators.losses import Losses
from tasks.train_controller.allocators.problem import Levels, Problem
from tasks.train_controller.allocators.ranked import ranked
from tasks.train_controller.allocators.rungs import Rungs
from tasks.train_controller.allocators.search import Features
from tasks.train_controller.allocators.unit_rungs import unit_rungs
from tasks.train_controller.allocators.weight_rungs import allocation_of, weight_rungs

UNITS = {"units 20%": 0.2, "units 30%": 0.3, "units 40%": 0.4}  # shares of the parameters of the blocks
WEIGHTS = {"weights 50%": "50%", "weights 60%": "60%", "weights 70%": "70%"}
IMPORTANCE, PRUNER = "wanda_sp", "wanda"
ROUND_TO = {"stories260K": 4, "stories3M": 16, "builtin": 8}  # channels of a rung; they must divide the FFN's
SEARCHED, HELD_OUT = 16, 64  # windows
LOOKS = (30, 100, 300)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One search."""

    problem: str
    allocator: str
    looks: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Posed:
    """A problem with its model, what is known of its parts, and the losses that were measured, by whomever.

    `refitted`: of weights, the loss held out of the model that is really pruned by these levels, and refitted.
    """

    rungs: Rungs
    features: Features
    windows: Windows
    known: dict[str, Losses]
    refitted: Callable[[Levels], float] | None = None


def main() -> None:
    run_models("allocators", parse(sys.argv[1:]), run, markdown)


def run(name: str, choice: argparse.Namespace) -> None:
    """Every search on this model that has no line yet, after a line about the circumstances."""
    file = file_of_lines(choice.results, "allocators", name)
    wanted = left(file, cells(choice), Cell, done="held_out")
    if not wanted:
        return
    text = read_text(name)
    facts = {"searched": SEARCHED, "held_out": HELD_OUT, "importance": IMPORTANCE, "pruner": PRUNER}
    add_line(file, circumstances("bench.allocators", load_model(MODELS[name][0]), text) | facts)
    posed = cache(partial(pose, name, text))
    run_cells(file, name, wanted, lambda cell: measure(posed(cell.problem, cell.seed), cell))


def cells(choice: argparse.Namespace) -> Iterator[Cell]:
    """Seed by seed. What looks at nothing is run once."""
    for seed, problem, looks, allocator in product(choice.seeds, choice.problems, choice.looks, choice.allocators):
        if looks == choice.looks[0] or allocator not in ("uniform", "adapt"):
            yield Cell(problem=problem, allocator=allocator, looks=looks, seed=seed)


def pose(name: str, text: Text, problem: str, seed: int) -> Posed:
    model = load_model(MODELS[name][0])
    batches = text.batches(seed)
    if problem in UNITS:
        cut = Cut(budget=UNITS[problem], round_to=ROUND_TO[name], repair=False)
        rungs: Rungs = unit_rungs(model, IMPORTANCES[IMPORTANCE]().score(model, batches), cut)
        summaries = rungs.summaries()
    else:
        pattern = parse_pattern(WEIGHTS[problem])
        parts = list(ranked(model, PRUNERS[PRUNER](), pattern, batches))
        outlasted = {f"{each.part.block}.{linear}": one for each in parts for linear, one in each.outlasted.items()}
        rungs, summaries = weight_rungs(model, pattern, outlasted), {each.part: each.scores for each in parts}
    features, windows = features_of(rungs.problem, summaries, block_features(model, batches)), windows_of(text, seed)
    refitted = None
    if problem in WEIGHTS:
        refitted = cache(partial(refit, name, rungs.problem, pattern, batches, windows.held_out_WT))
    return Posed(rungs=rungs, features=features, windows=windows, known={}, refitted=refitted)


def refit(
    name: str, problem: Problem, pattern: Pattern, batches: Sequence[Tensor], held_out_WT: Tensor, levels: Levels
) -> float:
    """Nats per token of the windows held out, of a model pruned block by block, as `oneshot --update refit` does."""
    model = load_model(MODELS[name][0])
    allocation = None if levels == problem.uniform() else allocation_of(problem, pattern, levels)
    prune_model(model, PRUNERS[PRUNER](), pattern, batches, allocation, update=Refit())
    return perplexity(model, held_out_WT.flatten(), WINDOW).nll


def windows_of(text: Text, seed: int) -> Windows:
    search_WT = sample_windows(text.calibration_T, WINDOW, SEARCHED, 1000 + seed)
    held_out: Tensor = text.evaluation_T[: HELD_OUT * WINDOW]
    return Windows(search_WT=search_WT, held_out_WT=held_out[: len(held_out) // WINDOW * WINDOW].view(-1, WINDOW))


def measure(posed: Posed, cell: Cell) -> dict[str, Any]:
    problem = posed.rungs.problem
    judge = ModelJudge(posed.rungs, posed.windows, cell.looks * posed.windows.tokens, posed.known)
    started = time.perf_counter()
    found = SEARCHERS[cell.allocator]().search(problem, judge, posed.features, seed=cell.seed)
    seconds = time.perf_counter() - started
    refitted = {}
    if posed.refitted is not None:
        refitted = {"refitted": posed.refitted(found.levels), "refitted_uniform": posed.refitted(problem.uniform())}
    return {
        "levels": found.levels,
        "tokens": judge.tokens,
        "forwards": judge.forwards,
        "hits": judge.hits,
        "seconds": seconds,
        "best": [round(move.best, 5) for move in found.moves],
        "why": found.why,
        "held_out": fmean(judge.held_out_losses(found.levels)),
        "uniform": fmean(judge.held_out_losses(problem.uniform())),
        "dense": fmean(judge.held_out_losses((0,) * len(problem.parts))),
    } | refitted


def parse(arguments: list[str]) -> argparse.Namespace:
    words = argparse.ArgumentParser(prog="python -m bench.allocators", description=__doc__)
    words.add_argument("--models", nargs="+", choices=MODELS, default=present())
    words.add_argument("--problems", nargs="+", choices=(*UNITS, *WEIGHTS), default=[*UNITS, *WEIGHTS])
    words.add_argument("--allocators", nargs="+", choices=SEARCHERS, default=list(SEARCHERS))
    words.add_argument("--looks", nargs="+", type=int, default=list(LOOKS))
    words.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    add_options(words)
    return words.parse_args(arguments)


if __name__ == "__main__":
    main()
