"""`python -m bench.activation`: sparse inputs beside sparse weights at the same patterns, and what makes up for them.

Every pattern × what is made sparse × what makes up for it × the linears it is done to. Inputs are chosen by magnitude.
A seed draws the calibration windows and shuffles them for what learns; what sees no windows is run for the first seed
alone. Each finished run is a line of `<results>/activation-<model>.jsonl`; a run whose line is there already is not
done again, so the benchmark can be stopped and started at any moment. `--table` writes activation.md from the lines.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import mean
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from bench.activation_table import INPUTS, WEIGHTS, markdown
from bench.cells import left, run_cells
from bench.lines import add_options, file_of_lines, run_models
from bench.texts import MODELS, WINDOW, Text, add_line, circumstances, present, read_text
from tasks.evaluate.perplexity import perplexity
from tasks.evaluate.size import counted_sparsity
from tasks.model.load import load_model
from tasks.model.modules import ALL
from tasks.prune import MITIGATIONS, PRUNERS
from tasks.prune.activation.apply import Installed, sparse_inputs
from tasks.prune.activation.learn import Learn, learn
from tasks.prune.activation.measure import input_rows, reading, weights_not_read
from tasks.prune.activation.nm import Magnitude
from tasks.prune.activation.recipe import ActivationRecipe
from tasks.prune.activation.topk import TopK
from tasks.prune.weight.apply import prune_model
from tasks.prune.weight.pattern import NM, parse_pattern

PATTERNS = ("2:4", "4:8", "8:16", "16:32", "20%", "25%", "40%", "50%", "65%", "75%", "90%")
MODULES = {"all": ALL, "ffn": ("gate_proj", "up_proj", "down_proj")}
LEARNED = tuple(name for name, kind in MITIGATIONS.items() if kind.learns)
METHODS = {INPUTS: ("none", "var", "dpts", *LEARNED), WEIGHTS: ("magnitude", "wanda")}
SEEING = (*LEARNED, "wanda")  # the calibration windows


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run. `sparse`: inputs or weights; `method`: what makes up for inputs, or chooses weights."""

    sparse: str
    method: str
    pattern: str
    modules: str
    seed: int


def main() -> None:
    run_models("activation", parse(sys.argv[1:]), run, markdown)


def run(name: str, choice: argparse.Namespace) -> None:
    """Every cell of this model that has no line yet, after a line about the circumstances and the dense model."""
    file = file_of_lines(choice.results, "activation", name)
    wanted = left(file, cells(choice), Cell, done="cell")
    if not wanted:
        return
    folder, text = MODELS[name][0], read_text(name)
    add_line(file, circumstances("bench.activation", load_model(folder), text) | {"learn": str(Learn())})
    run_cells(file, name, wanted, lambda cell: measure(load_model(folder), text, cell))


def cells(choice: argparse.Namespace) -> Iterator[Cell]:
    """Seed by seed; first inputs with what needs no training, then weights, then what learns."""
    static = [(INPUTS, method) for method in METHODS[INPUTS] if method not in LEARNED]
    ways = [*static, *product([WEIGHTS], METHODS[WEIGHTS]), *product([INPUTS], LEARNED)]
    for seed, modules, (sparse, method), pattern in product(choice.seeds, choice.modules, ways, choice.patterns):
        if method in choice.methods and (method in SEEING or seed == choice.seeds[0]):
            yield Cell(sparse=sparse, method=method, pattern=pattern, modules=modules, seed=seed)


def measure(model: PreTrainedModel, text: Text, cell: Cell) -> dict[str, Any]:
    """What came of it; why not, where the pattern does not divide the model's widths."""
    try:
        return (_sparse_inputs if cell.sparse == INPUTS else _sparse_weights)(model, text, cell)
    except ValueError as why:
        return {"refused": str(why)}


def recipe_of(cell: Cell) -> ActivationRecipe:
    pattern = parse_pattern(cell.pattern)
    mitigations = (MITIGATIONS[cell.method](),) if cell.method in MITIGATIONS else ()
    selection = Magnitude() if isinstance(pattern, NM) else TopK()
    return ActivationRecipe(
        selection=selection, pattern=pattern, mitigations=mitigations, modules=MODULES[cell.modules]
    )


def _sparse_inputs(model: PreTrainedModel, text: Text, cell: Cell) -> dict[str, Any]:
    started, recipe, batches = time.perf_counter(), recipe_of(cell), text.batches(cell.seed)
    with sparse_inputs(model, recipe, batches) as installed:
        learned = _learn(installed, text, batches, cell.seed) if recipe.learns else {}
        seconds = time.perf_counter() - started
        with reading(model) as readings:
            score = perplexity(model, text.evaluation_T, WINDOW)
        rows = input_rows(installed, recipe, readings)
        not_read = weights_not_read(installed, rows)
    kept = sum(row.energy_kept for row in rows) / len(rows)
    found = {"ppl": score.ppl, "nll": score.nll, "sparsity": not_read, "energy_kept": kept, "seconds": seconds}
    if learned:
        found["learned"] = learned | {"nll_to": score.nll, "fell": score.nll < learned["nll_from"]}
    return found


def _learn(installed: Installed, text: Text, batches: Sequence[Tensor], seed: int) -> dict[str, Any]:
    """Nats per token of the evaluation before it; the mean error of blocks on held-out windows, before and after."""
    before = perplexity(installed.model, text.evaluation_T, WINDOW).nll
    rows = learn(installed, batches, Learn(seed=seed))
    errors = [mean(each) for each in zip(*((row.error_from, row.error_to) for row in rows), strict=True)]
    return {"nll_from": before, "error_from": errors[0], "error_to": errors[1]}


def _sparse_weights(model: PreTrainedModel, text: Text, cell: Cell) -> dict[str, Any]:
    started = time.perf_counter()
    pattern, modules = parse_pattern(cell.pattern), MODULES[cell.modules]
    prune_model(model, PRUNERS[cell.method](), pattern, text.batches(cell.seed), modules=modules)
    seconds = time.perf_counter() - started
    score = perplexity(model, text.evaluation_T, WINDOW)
    return {"ppl": score.ppl, "nll": score.nll, "sparsity": counted_sparsity(model), "seconds": seconds}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.activation", description=__doc__)
    methods = [method for of_side in METHODS.values() for method in of_side]
    patterns = f"({' '.join(PATTERNS)})".replace("%", "%%")
    models = [name for name in ("stories3M", "builtin") if name in present()]
    parser.add_argument("--models", nargs="+", choices=present(), default=models, help="(stories3M builtin)")
    parser.add_argument("--methods", nargs="+", choices=methods, default=methods, help="(all)")
    parser.add_argument("--patterns", nargs="+", default=PATTERNS, help=patterns)
    parser.add_argument("--modules", nargs="+", choices=MODULES, default=list(MODULES), help="(all ffn)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the calibration windows (0 1 2)")
    add_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
