"""`python -m bench.slices`: the perplexity of sliced models, per importance, cut and repaired, beside torch-pruning's.

A seed draws the calibration windows. Each finished run is a line of `<results>/slices-<model>.jsonl`; a run whose line
is there already is not done again, so the benchmark can be stopped and started at any moment. `--table` writes
slices.md from the lines alone. On first use torch-pruning is installed in `bench/.peers`; without a package index its
runs are left out, and the lines say so.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from bench import slices_torch_pruning as peer
from bench.cells import left, run_cells
from bench.lines import add_options, file_of_lines, run_models
from bench.peers_environments import NotInstalled
from bench.slices_cuts import CHANNELS, CUTS, OURS, ROUND_TO, SPLIT, Cell, Espalier, block_parameters
from bench.slices_recover import RATE, recover_cut
from bench.slices_table import markdown
from bench.texts import MODELS, WINDOW, Text, add_line, circumstances, present, read_text
from tasks.evaluate.perplexity import perplexity
from tasks.model.load import load_model

BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5)
RECOVERED_CUTS = (CHANNELS, peer.HIDDEN_KEPT)


def main() -> None:
    run_models("slices", parse(sys.argv[1:]), run, markdown)


def run(name: str, choice: argparse.Namespace) -> None:
    """Every cell of this model that has no line yet, after a line about the circumstances and the dense model."""
    file = file_of_lines(choice.results, "slices", name)
    wanted = left(file, cells(choice), Cell, done="ppl")
    if not wanted:
        return
    folder, text = MODELS[name][0], read_text(name)
    dense = load_model(folder)
    blocks = block_parameters(dense)
    facts = {"block_parameters": blocks, "round_to": ROUND_TO, "recovery_rate": RATE, "peer": peer.REQUIREMENT}
    add_line(file, circumstances("bench.slices", dense, text) | facts)
    ours, theirs = Espalier(folder, text), peer.TorchPruning(folder, text)

    def measure_one(cell: Cell) -> dict[str, Any]:
        return measure(theirs.make if cell.cut in peer.CUTS else ours.make, cell, folder, text, blocks)

    run_cells(file, name, wanted, measure_one)


def cells(choice: argparse.Namespace) -> Iterator[Cell]:
    """Seed by seed; those with a recovery last. What sees no windows is run for the first seed alone."""
    for tokens in dict.fromkeys((0, choice.recover_tokens)):
        for seed, cut, budget in product(choice.seeds, choice.cuts, choice.budgets):
            for importance, repair in ways(cut, choice):
                sees = tokens or repair or cut in SPLIT or importance not in (peer.MAGNITUDE, "weight_norm")
                if (sees or seed == choice.seeds[0]) and (not tokens or recovers(cut, importance, budget, choice)):
                    yield Cell(
                        cut=cut, importance=importance, budget=budget, repair=repair, recover_tokens=tokens, seed=seed
                    )


def ways(cut: str, choice: argparse.Namespace) -> Iterable[tuple[str, bool]]:
    """Importances, and whether readers are repaired; the peer has no repair."""
    return product(choice.importances, (False, True)) if cut in CUTS else product(peer.IMPORTANCES, (False,))


def recovers(cut: str, importance: str, budget: float, choice: argparse.Namespace) -> bool:
    return cut in RECOVERED_CUTS and importance in choice.recover and budget in choice.recover_budgets


def measure(
    make: Callable[[Cell], PreTrainedModel], cell: Cell, folder: Path, text: Text, blocks: int
) -> dict[str, Any]:
    """What came of it, seconds of cutting and of recovery apart; or why it was not run."""
    started = time.perf_counter()
    try:
        model = make(cell)
    except (NotInstalled, ValueError) as reason:
        return {"not_run": str(reason)}
    cut = time.perf_counter()
    if cell.recover_tokens:
        recover_cut(model, folder, text, cell.recover_tokens, cell.seed)
    seconds = {"seconds": cut - started, "recovery_seconds": time.perf_counter() - cut}
    score = perplexity(model, text.evaluation_T, WINDOW)
    sizes = {"removed": 1 - block_parameters(model) / blocks, "parameters": model.num_parameters()}
    return {"ppl": score.ppl, "nll": score.nll} | sizes | seconds


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.slices", description=__doc__)
    every = (*CUTS, *peer.CUTS)
    parser.add_argument("--models", nargs="+", choices=present(), default=present(), help="(all that are here)")
    parser.add_argument("--importances", nargs="+", choices=OURS, default=OURS, help="of ours (all)")
    parser.add_argument("--cuts", nargs="+", choices=every, default=every, help="(all)")
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS, help="shares that go (0.1 to 0.5)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the calibration windows (0 1 2)")
    parser.add_argument("--recover-tokens", type=int, default=400_000, help="0 for no recovery (400,000)")
    recover = ("activation", peer.TAYLOR)
    parser.add_argument("--recover", nargs="+", default=recover, help="importances whose cuts are (the best two)")
    parser.add_argument("--recover-budgets", nargs="+", type=float, default=(0.3, 0.5), help="(0.3 0.5)")
    add_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
