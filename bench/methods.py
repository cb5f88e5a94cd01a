"""`python -m bench.methods`: the perplexity of every method × pattern × update × order of inputs, over several seeds.

A seed draws the calibration windows. Each finished run is a line of `<results>/methods-<model>.jsonl`; a run whose line
is there already is not done again, so the benchmark can be stopped and started at any moment. What is cheap and what
most is asked about come first. `--table` writes methods.md from the lines alone.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from transformers import PreTrainedModel

from bench.cells import left, run_cells
from bench.lines import add_options, file_of_lines, run_models
from bench.methods_table import markdown
from bench.texts import MODELS, WINDOW, WINDOWS, Text, add_line, circumstances, present, read_text
from tasks.evaluate.perplexity import perplexity
from tasks.evaluate.size import counted_sparsity
from tasks.model.anatomy import prunable
from tasks.model.load import load_model
from tasks.prune import PRUNERS, UPDATES
from tasks.prune.allocators import OWL, Uniform
from tasks.prune.weight.apply import prune_model
from tasks.prune.weight.lowrank import LowRank
from tasks.prune.weight.pattern import NM, parse_pattern
from tasks.prune.weight.recipe import Recipe
from tasks.prune.weight.reconstruct import Reconstruct
from tasks.prune.weight.refit import Refit

PATTERNS = ("50%", "60%", "70%", "2:4", "4:8")
STEPS: dict[str, dict[str, Any]] = {  # what is done beside choosing -> fields of a Recipe, or an allocator
    "none": {"update": UPDATES["none"]()},
    "sweep": {"update": UPDATES["sweep"]()},
    "refit": {"update": Refit()},
    "drift": {"update": Refit(drift=0.5), "order": "group"},
    "tuned": {"update": Refit(drift=0.5), "reconstruct": Reconstruct()},
    "owl": {"allocator": OWL()},
    "low rank": {"low_rank": LowRank()},
}
USUAL = ("none", "sweep", "refit", "drift", "tuned")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run."""

    step: str
    method: str
    pattern: str
    permute: bool
    seed: int
    windows: int = WINDOWS  # of calibration


def main() -> None:
    run_models("methods", parse(sys.argv[1:]), run, markdown)


def run(name: str, choice: argparse.Namespace) -> None:
    """Every cell of this model that has no line yet, after a line about the circumstances and the dense model."""
    file = file_of_lines(choice.results, "methods", name)
    wanted = left(file, cells(choice), Cell, done="cell")
    if not wanted:
        return
    folder, text = MODELS[name][0], read_text(name)
    model = load_model(folder)
    steps = {name: " ".join(f"{field}={value}" for field, value in step.items()) for name, step in STEPS.items()}
    add_line(file, circumstances("bench.methods", model, text, choice.windows) | {"steps": steps})
    run_cells(file, name, wanted, lambda cell: measure(load_model(folder), text, cell))


def cells(choice: argparse.Namespace) -> Iterator[Cell]:
    """Step by step and seed by seed; inputs are permuted for n:m alone."""
    for step, seed, method, pattern in product(choice.steps, choice.seeds, choice.methods, choice.patterns):
        for permute in (False, True) if isinstance(parse_pattern(pattern), NM) else (False,):
            drawn = {"seed": seed, "windows": choice.windows}
            yield Cell(step=step, method=method, pattern=pattern, permute=permute, **drawn)


def measure(model: PreTrainedModel, text: Text, cell: Cell) -> dict[str, Any]:
    """What came of it; only why not, where the pattern does not divide the model's widths, or the step has no use."""
    pruner, pattern, step = PRUNERS[cell.method](), parse_pattern(cell.pattern), dict(STEPS[cell.step])
    allocator = step.pop("allocator", Uniform())
    if undivided := [name for name, each in prunable(model.config).items() if not pattern.divides(each.in_features)]:
        return {"refused": f"{pattern} does not divide the inputs of {undivided[0]}"}
    try:
        Recipe(pruner=pruner, pattern=pattern, permute=cell.permute, **step)
        allocator.check(pattern)
    except ValueError as why:
        return {"refused": str(why)}
    started, batches = time.perf_counter(), text.batches(cell.seed, cell.windows)
    allocation = allocator.allocate(model, pattern, batches)
    prune_model(model, pruner, pattern, batches, allocation, permute=cell.permute, **step)
    seconds = time.perf_counter() - started
    score = perplexity(model, text.evaluation_T, WINDOW)
    zeros = counted_sparsity(model)
    return {"ppl": score.ppl, "nll": score.nll, "sparsity": zeros, "seconds": seconds}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.methods", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=present(), default=present(), help="(all that are here)")
    parser.add_argument("--methods", nargs="+", choices=PRUNERS, default=list(PRUNERS), help="(all)")
    parser.add_argument("--patterns", nargs="+", default=PATTERNS, help=f"({' '.join(PATTERNS)})".replace("%", "%%"))
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=USUAL, help=f"({' '.join(USUAL)})")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the calibration windows (0 1 2)")
    parser.add_argument("--windows", type=int, default=WINDOWS, help=f"of calibration ({WINDOWS})")
    add_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
