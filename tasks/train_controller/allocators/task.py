"""The door of the allocators: `rank_weights`, `describe_blocks`, `measure_levels` and `search_allocation`."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from tasks.caching import cache_key
from tasks.handles import Checkpoint, Tokens
from tasks.model.load import load_model
from tasks.model.mapped import mapped_model
from tasks.progress import progress
from tasks.prune.structure.task import calibration_batches, opened, read_scores
from tasks.prune.weight.pattern import Pattern
from tasks.prune.weight.pruner import Pruner
from tasks.record import home
from tasks.record.kept import Kept
from tasks.stage import open_folder, stage
from tasks.train_controller.allocators.features import BlockFeatures, Summary, block_features, features_of
from tasks.train_controller.allocators.judge import ModelJudge, Windows, divided
from tasks.train_controller.allocators.level_table import level_table, looks_of, table_judge
from tasks.train_controller.allocators.losses import Losses
from tasks.train_controller.allocators.outcome import searched
from tasks.train_controller.allocators.problem import Part
from tasks.train_controller.allocators.ranked import ranked
from tasks.train_controller.allocators.results import OfUnits, OfWeights, Ranked, Searched
from tasks.train_controller.allocators.rows import LevelRow
from tasks.train_controller.allocators.rungs import Rungs
from tasks.train_controller.allocators.search import Move, Searcher
from tasks.train_controller.allocators.unit_rungs import UnitRungs, unit_rungs
from tasks.train_controller.allocators.weight_rungs import weight_rungs


@stage()
def rank_weights(model: Checkpoint, calibration: Tokens, pruner: Pruner, pattern: Pattern, device: str) -> Ranked:
    """By the scores of `pruner`, how many rungs of zeros in `pattern` each weight outlasts; one block is in memory."""
    outlasted: dict[str, Tensor] = {}
    scores: list[Summary] = []
    with mapped_model(open_folder(model)) as network:
        for part in ranked(network, pruner, pattern, calibration_batches(calibration, device), device):
            outlasted |= {f"{part.part.block}.{name}": each for name, each in part.outlasted.items()}
            scores.append(part.scores)
    with home.store("ranks") as draft:
        save_file(outlasted, draft.path / "outlasted.safetensors")
    return Ranked(hash=draft.stored.hash, folder=draft.stored.folder, scores=tuple(scores))


@stage()
def describe_blocks(model: Checkpoint, calibration: Tokens, device: str) -> tuple[BlockFeatures, ...]:
    """What each block does to the calibration windows."""
    with opened(model, device, whole=False) as network:
        return block_features(network, calibration_batches(calibration, device), device)


@stage()
def measure_levels(
    model: Checkpoint, calibration: Tokens, of: OfUnits | OfWeights, tokens: int, device: str
) -> tuple[LevelRow, ...]:
    """The loss with each part alone at each of its levels, on the windows of a search that may look at `tokens`."""
    rungs = _rungs(load_model(open_folder(model), device), of)
    windows = _windows(calibration, tokens)
    with (
        _known(model, calibration, of, windows, device) as known,
        progress("levels", total=looks_of(rungs.problem)) as reach,
    ):
        rows: list[LevelRow] = []
        for row in level_table(table_judge(rungs, windows, known)):
            rows.append(row)
            reach(len(rows))
    return tuple(rows)


@stage()
def search_allocation(
    model: Checkpoint,
    calibration: Tokens,
    of: OfUnits | OfWeights,
    searcher: Searcher,
    name: str,
    tokens: int,
    seed: int,
    blocks: tuple[BlockFeatures, ...],
    table: tuple[LevelRow, ...],
    device: str,
) -> Searched:
    """The levels that `searcher`, called `name`, finds while it looks at no more than `tokens`.

    `blocks` and `table`, which may be empty, tell it how the parts differ.
    """
    started = perf_counter()
    with opened(model, device, whole=True) as network:
        rungs = _rungs(network, of)
    windows, scores = _windows(calibration, tokens), _summaries(rungs, of)
    features = features_of(rungs.problem, scores, blocks, table)
    with (
        _known(model, calibration, of, windows, device) as known,
        progress(f"allocate {name}", total=tokens) as reach,
    ):

        def on_move(move: Move) -> None:
            reach(min(move.tokens, tokens))

        judge = ModelJudge(rungs, windows, tokens, known)
        found = searcher.search(rungs.problem, judge, features, seed=seed, on_move=on_move)
        return searched(name, found, judge, of, lambda: perf_counter() - started)


def _rungs(network: PreTrainedModel, of: OfUnits | OfWeights) -> Rungs:
    if isinstance(of, OfUnits):
        return unit_rungs(network, read_scores(of.scored), of.cut)
    return weight_rungs(network, of.pattern, load_file(open_folder(of.ranked) / "outlasted.safetensors"))


def _summaries(rungs: Rungs, of: OfUnits | OfWeights) -> dict[Part, Summary]:
    if isinstance(of, OfWeights):
        return dict(zip(rungs.problem.parts, of.ranked.scores, strict=True))
    assert isinstance(rungs, UnitRungs)
    return rungs.summaries()


def _windows(calibration: Tokens, tokens: int) -> Windows:
    return divided(load_file(open_folder(calibration) / "tokens.safetensors")["ids"], tokens)


@contextmanager
def _known(
    model: Checkpoint, calibration: Tokens, of: OfUnits | OfWeights, windows: Windows, device: str
) -> Iterator[dict[str, Losses]]:
    """The losses of these parts on these windows that were measured before, by whomever; new ones are kept.

    looks/<key>.json, where the key is that of the stage that measures losses and of nothing else.
    """
    inputs = {"model": model, "calibration": calibration, "of": of.content, "windows": len(windows.search_WT)}
    key = cache_key(measure_levels.fn)(None, inputs | {"device": device.partition(":")[0]})
    known = Kept(home.root() / "looks" / f"{key}.json")
    try:
        yield known
    finally:
        known.keep()
