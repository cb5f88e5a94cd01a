"""`python -m bench.rewards`: what RL-Allocator is paid for is what it gets, and for nothing it learns nothing.

Each weight of the reward is swept over four values; what it pays for is read off the levels found. And a search whose
rewards belong to other levels, drawn once and for all, stands beside one whose rewards are its own, and beside random
search with the same. Units are masked, 30 % of the blocks' parameters (for `bytes`, of their FLOPs: of all levels that
save equal parameters the bytes are alike). Each finished search is a line of `<results>/rewards-<model>.jsonl` that is
not done again.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np

from bench.allocators import HELD_OUT, IMPORTANCE, ROUND_TO, SEARCHED, Posed, windows_of
from bench.cells import left, run_cells
from bench.lines import add_options, file_of_lines, run_models
from bench.rewards_table import markdown
from bench.texts import MODELS, Text, add_line, circumstances, present, read_text
from tasks.calibrate.importance import IMPORTANCES
from tasks.model.load import load_model
from tasks.prune.structure.cut import Cut
from tasks.train_controller.allocators.features import block_features, features_of
from tasks.train_controller.allocators.judge import ModelJudge
from tasks.train_controller.allocators.losses import Losses
from tasks.train_controller.allocators.problem import Levels, Problem
from tasks.train_controller.allocators.random_search import RandomSearch
from tasks.train_controller.allocators.rl_allocator import RLAllocator
from tasks.train_controller.allocators.search import Rises
from tasks.train_controller.allocators.unit_rungs import unit_rungs

BUDGET = 0.3
VALUES = (0.05, 0.5, 2.0, 20.0)
BESIDE = {"accuracy": {"kv": 1.0}}  # what else is paid for; beside the others the loss, with 1
OWN, SHUFFLED, CHANCE = LEARNING = "own", "shuffled", "chance"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One search. `weight`: that is swept, or whose rewards they are; `value`: of a weight that is swept."""

    weight: str
    value: float
    looks: int
    seed: int


class Shuffled(ModelJudge):
    """While it searches, levels have the losses of other levels, and parts the rises of other parts."""

    def __init__(self, *given: Any, seed: int) -> None:
        super().__init__(*given)
        self.seed = seed

    def _losses(self, levels: Levels, fold: int | None) -> Losses:
        return super()._losses(self._other(levels), fold)

    def _rises(self, levels: Levels, fold: int | None) -> Rises:
        rises = super()._rises(self._other(levels), fold)
        others = self._random(levels).permutation(len(levels))
        parts = [
            np.interp(np.linspace(0, 1, len(own_R)), np.linspace(0, 1, len(rises.parts[other])), rises.parts[other])
            for own_R, other in zip(rises.parts, others, strict=True)
        ]
        return Rises(loss=rises.loss, parts=parts)

    def _other(self, levels: Levels) -> Levels:
        return self.rungs.problem.project(self._random(levels).uniform(size=len(levels)).tolist())

    def _random(self, levels: Levels) -> np.random.Generator:
        return np.random.default_rng([self.seed, *levels])


def main() -> None:
    run_models("rewards", parse(sys.argv[1:]), run, markdown)


def run(name: str, choice: argparse.Namespace) -> None:
    """Every search on this model that has no line yet, after a line about the circumstances."""
    file = file_of_lines(choice.results, "rewards", name)
    wanted = left(file, cells(choice), Cell, done="metric")
    if not wanted:
        return
    text = read_text(name)
    facts = {"searched": SEARCHED, "held_out": HELD_OUT, "importance": IMPORTANCE, "budget": BUDGET}
    add_line(file, circumstances("bench.rewards", load_model(MODELS[name][0]), text) | facts)
    posed = cache(partial(pose, name, text))
    run_cells(file, name, wanted, lambda cell: measure(posed(cost_of(cell.weight), cell.seed), cell))


def cells(choice: argparse.Namespace) -> Iterator[Cell]:
    for seed, weight in product(choice.seeds, choice.weights):
        for value in (1.0,) if weight in LEARNING else VALUES:
            yield Cell(weight=weight, value=value, looks=choice.looks, seed=seed)


def cost_of(weight: str) -> str:
    """Of the budget."""
    return "flops" if weight == "bytes" else "parameters"


def pose(name: str, text: Text, cost: str, seed: int) -> Posed:
    model, batches = load_model(MODELS[name][0]), text.batches(seed)
    cut = Cut(budget=BUDGET, cost=cost, round_to=ROUND_TO[name], repair=False)
    rungs = unit_rungs(model, IMPORTANCES[IMPORTANCE]().score(model, batches), cut)
    features = features_of(rungs.problem, rungs.summaries(), block_features(model, batches))
    return Posed(rungs=rungs, features=features, windows=windows_of(text, seed), known={})


def measure(posed: Posed, cell: Cell) -> dict[str, Any]:
    given = (posed.rungs, posed.windows, cell.looks * posed.windows.tokens, posed.known)
    judge = Shuffled(*given, seed=cell.seed) if cell.weight in (SHUFFLED, CHANCE) else ModelJudge(*given)
    weights = {} if cell.weight in LEARNING else {**BESIDE.get(cell.weight, {}), cell.weight: cell.value}
    problem = posed.rungs.problem
    searcher = RandomSearch() if cell.weight == CHANCE else RLAllocator(**weights)
    found = searcher.search(problem, judge, posed.features, seed=cell.seed)
    honest = ModelJudge(*given)
    loss = fmean(honest.final_losses(found.levels))
    held_out, uniform = (fmean(honest.held_out_losses(each)) for each in (found.levels, problem.uniform()))
    return {
        "levels": found.levels,
        "tokens": judge.tokens,
        "best": [round(move.best, 5) for move in found.moves],
        "metric": metric_of(cell.weight, problem, found.levels, loss),
        "held_out": held_out,
        "uniform": uniform,
    }


def metric_of(weight: str, problem: Problem, levels: Levels, loss: float) -> float:
    """What the weight pays for: the share of the dense model's cost that is saved; of the accuracy the loss, negative.

    The loss is that on the windows of the search, which it is paid for.
    """
    if weight in ("accuracy", *LEARNING):
        return -loss
    if weight == "peak":
        return 1 - problem.peak(levels) / problem.peak((0,) * len(levels))
    return problem.saved(levels, weight) / problem.totals[weight]


def parse(arguments: list[str]) -> argparse.Namespace:
    words = argparse.ArgumentParser(prog="python -m bench.rewards", description=__doc__)
    known = ("accuracy", "flops", "bytes", "peak", "kv", *LEARNING)
    words.add_argument("--models", nargs="+", choices=MODELS, default=present())
    words.add_argument("--weights", nargs="+", choices=known, default=list(known))
    words.add_argument("--looks", type=int, default=60)
    words.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    add_options(words)
    return words.parse_args(arguments)


if __name__ == "__main__":
    main()
