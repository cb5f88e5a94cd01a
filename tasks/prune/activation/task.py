"""The door of the activation room: the stages `sparsify`, `evaluate_sparse` and `time_sparse`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from tasks.calibrate.batches import batches_of
from tasks.evaluate.evaluation import evaluate_model
from tasks.evaluate.perplexity import perplexity
from tasks.evaluate.size import weight_bytes
from tasks.evaluate.speed import compare_speed, tokens_to_time
from tasks.handles import Checkpoint, Tokens
from tasks.model.anatomy import dissect, find_blocks
from tasks.model.load import load_model
from tasks.progress import progress
from tasks.prune.activation.apply import Installed, install
from tasks.prune.activation.budget import patterns_of_blocks, share_of
from tasks.prune.activation.decisions import decisions_of, product_rows, with_decisions
from tasks.prune.activation.fast import Decision, Shape, fast
from tasks.prune.activation.folder import load_sparse, save_sparse
from tasks.prune.activation.greedy import split_greedily
from tasks.prune.activation.learn import Learn, learn
from tasks.prune.activation.measure import input_rows, reading, weights_not_read
from tasks.prune.activation.recipe import ActivationRecipe
from tasks.prune.activation.results import NamedRecipe, SparseEvaluation, SparseTiming, Sparsified
from tasks.prune.activation.rows import LearnedRow
from tasks.prune.activation.sparse_input import SparseInput, learned
from tasks.prune.allocation import Allocation
from tasks.prune.weight.pattern import Pattern
from tasks.record import home
from tasks.stage import open_folder, stage

DECISIONS = "products.json"  # in the artifacts folder: which product is faster, by machine


@stage()
def sparsify(
    model: Checkpoint,
    calibration: Tokens,
    how: NamedRecipe,
    allocation: Allocation | None,
    greedy: float | None,
    learning: Learn | None,
    device: str,
) -> Sparsified:
    """Let `model` read sparse inputs, calibrated and trained on these windows, and store what that takes beside it.

    `allocation`: what each block drops; None for the pattern in all of them. `greedy`: the step by which the share of
    a block is divided among its inputs; None for the same share of each.
    Prompts are read sparse here whatever the recipe says of them: a dense one would leave nothing to calibrate.
    """
    network, batches = load_model(open_folder(model), device), batches_of(_ids(calibration), device)
    recipe = replace(how.recipe, prefill="sparse")
    patterns = _patterns(network, recipe, batches, allocation, greedy)
    installed = install(network, recipe, batches, patterns)
    rows = [] if learning is None else _learn(installed, batches, learning)
    with home.store("activations") as draft:
        save_sparse(installed, how.recipe, model.hash, draft.path, how.methods)
    stored = draft.stored
    return Sparsified(hash=stored.hash, folder=stored.folder, size_bytes=stored.size_bytes, learned=tuple(rows))


@stage()
def evaluate_sparse(
    model: Checkpoint, sparse: Sparsified, how: NamedRecipe, tokens: Tokens, device: str
) -> SparseEvaluation:
    """Perplexity with every token read sparse, those of a prompt too, and what was dropped and kept meanwhile.

    The sparsity of its row is the share of the weights of the blocks' linears that a token has not needed.
    """
    folder = open_folder(model)
    network, installed = _load_sparse(folder, model, sparse, how, device)
    for module in network.modules():
        if isinstance(module, SparseInput):
            module.prefill = "sparse"
    ids, size_bytes = _ids(tokens), weight_bytes(folder) + sparse.size_bytes
    with progress("perplexity with sparse inputs", total=tokens.windows) as reach, reading(network) as readings:
        row = evaluate_model(network, ids, tokens, "pruned", sparse.hash, size_bytes, lambda done, _: reach(done))
    inputs = input_rows(installed, how.recipe, readings)
    return SparseEvaluation(evaluation=replace(row, sparsity=weights_not_read(installed, inputs)), inputs=tuple(inputs))


@stage()
def time_sparse(model: Checkpoint, sparse: Sparsified, how: NamedRecipe, device: str, machine: str) -> SparseTiming:
    """Prefill and decode speed beside the dense model, in turns, with the products that are faster on this machine.

    Which are is measured once for each shape and kept in the artifacts folder. `machine` is in the key too.
    """
    folder = open_folder(model)
    dense = load_model(folder, device)
    network, _ = _load_sparse(folder, model, sparse, how, device)
    with fast(network, _known(machine)) as decided:
        _keep(machine, decided)
        speeds = compare_speed(dense, network, **tokens_to_time(dense))
    return SparseTiming(speeds=tuple(speeds), products=tuple(product_rows(decided.values())))


def _patterns(
    network: PreTrainedModel,
    recipe: ActivationRecipe,
    batches: Sequence[Tensor],
    allocation: Allocation | None,
    greedy: float | None,
) -> list[dict[str, Pattern]] | None:
    """Of each input of each block; None for that of the recipe everywhere."""
    anatomy = dissect(network)
    of_blocks = None if allocation is None else patterns_of_blocks(recipe, anatomy, allocation)
    if greedy is None:
        return of_blocks
    shares = None if of_blocks is None else [*map(share_of, recipe.groups(anatomy), of_blocks)]
    return split_greedily(network, recipe, batches, greedy, shares)


def _learn(installed: Installed, batches: tuple[Tensor, ...], learning: Learn) -> list[LearnedRow]:
    """Train block by block. Where that does not lower the model's loss on the windows held out, all is as before:
    nearer outputs of blocks need not be better predictions."""
    held_out = torch.cat([batches[place].flatten() for place in learning.scored(len(batches))])
    tensors, window = learned(installed.model), batches[0].shape[1]
    start = {name: tensor.clone() for name, tensor in tensors.items()}
    before = perplexity(installed.model, held_out, window).nll
    with progress("learn", total=len(find_blocks(installed.model)[1])) as reach:
        rows = learn(installed, batches, learning, on_block=lambda row: reach(row.block + 1))
    after = perplexity(installed.model, held_out, window).nll
    if not after < before:
        for name, tensor in tensors.items():
            tensor.data.copy_(start[name])
    return [replace(row, loss_from=before, loss_to=after, kept=after < before) for row in rows]


def _load_sparse(
    folder: Path, model: Checkpoint, sparse: Sparsified, how: NamedRecipe, device: str
) -> tuple[PreTrainedModel, Installed]:
    network = load_model(folder, device)
    installed, _ = load_sparse(network, model.hash, open_folder(sparse), how.methods)
    return network, installed


def _ids(tokens: Tokens) -> Tensor:
    return load_file(open_folder(tokens) / "tokens.safetensors")["ids"]


def _known(machine: str) -> dict[Shape, Decision]:
    return decisions_of(machine, _text())


def _keep(machine: str, decided: Mapping[Shape, Decision]) -> None:
    home.write_file(home.root() / DECISIONS, with_decisions(machine, _text(), decided).encode())


def _text() -> str | None:
    file = home.root() / DECISIONS
    return file.read_text(encoding="utf-8") if file.is_file() else None
