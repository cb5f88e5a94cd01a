"""torch-pruning's side of bench.slices, with the settings of its own example for language models.

These are (its repository, examples/LLMs): groups ranked in each block on their own, the same ratio for FFN, hidden
width and heads, whole heads, widths of `round_to` 4, the head left alone; importance by group norm (p = 2, mean), and
beside it by its group Taylor. It makes models of any size only by its ratio, so the ratio is searched that removes
from the blocks what is nearest to the budget. The example cuts the hidden width too, which costs it most; a second cut
keeps that width and is otherwise the same.

What it needed to run on transformers 5.23 and a model with fewer KV heads than query heads:
- a forward without a cache, which its tracer cannot follow;
- attention that repeats the KV heads in sight (eager), as the fused one no longer does, while the graph is traced;
- no halves swapped by the rotary embedding while it is traced: at 8 query heads of 24 on 4 KV heads (the built-in
  model) it follows them in a circle without end; heads go whole, so what depends on what is the same without;
- the number of query heads of a KV head told to each attention afterwards, as the example does.
"""

import copy
import importlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama import modeling_llama

from bench.peers_environments import ENVIRONMENTS, NotInstalled, last_line
from bench.slices_cuts import Cell, block_parameters
from bench.texts import Text
from tasks.model.load import load_model

REQUIREMENT = "torch-pruning==1.6.1"
WHOLE, HIDDEN_KEPT = "torch-pruning", "torch-pruning, hidden width kept"
CUTS = (WHOLE, HIDDEN_KEPT)
MAGNITUDE, TAYLOR = "group magnitude", "group taylor"
IMPORTANCES = (MAGNITUDE, TAYLOR)
RATIOS = [ratio / 100 for ratio in range(1, 81)]
TRACED_TOKENS = 8


@cache
def library() -> ModuleType:
    """torch_pruning, from a folder of its own, without what it depends on: that is ours. Raises NotInstalled."""
    folder = ENVIRONMENTS / "torch-pruning"
    installed = folder / "requirements.txt"
    if not installed.is_file() or installed.read_text() != REQUIREMENT:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        done = subprocess.run(
            [*command, "--target", str(folder), REQUIREMENT], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise NotInstalled(last_line(done.stderr or done.stdout))
        installed.write_text(REQUIREMENT)
    sys.path.append(str(folder))
    return importlib.import_module("torch_pruning")


class TorchPruning:
    """One model and its text; gradients of a seed's windows, and what each ratio removes, are found once."""

    def __init__(self, folder: Path, text: Text) -> None:
        self._folder, self._text = folder, text
        self._gradients = cache(self._gradient)
        self._ratio = cache(self._nearest)
        self._shares = cache(self._share_by_ratio)

    def make(self, cell: Cell) -> PreTrainedModel:
        """The model with the cell's cut. Raises NotInstalled."""
        library()
        model = self._load()
        if cell.importance == TAYLOR:
            for name, gradient in self._gradients(cell.seed).items():
                model.get_parameter(name).grad = gradient.clone()
        prune(model, cell.importance, self._ratio(cell.cut, cell.budget), hidden=cell.cut == WHOLE)
        model.zero_grad()
        return model

    def _load(self) -> PreTrainedModel:
        return load_model(self._folder).requires_grad_(True)

    def _gradient(self, seed: int) -> dict[str, Tensor]:
        """Of the mean loss on all calibration windows."""
        model, batches = self._load(), self._text.batches(seed)
        for ids_BT in batches:
            (model(ids_BT, labels=ids_BT, use_cache=False).loss / len(batches)).backward()
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}

    def _nearest(self, cut: str, budget: float) -> float:
        """Of all: a higher ratio may remove less, where a check of its own leaves the query heads."""
        shares = self._shares(cut)
        return min(shares, key=lambda ratio: abs(shares[ratio] - budget))

    def _share_by_ratio(self, cut: str) -> dict[float, float]:
        """The share of the blocks' parameters that each ratio removes: widths do not depend on the importance."""
        dense, shares = self._load(), {}
        for ratio in RATIOS:
            model = copy.deepcopy(dense)
            prune(model, MAGNITUDE, ratio, hidden=cut == WHOLE)
            shares[ratio] = 1 - block_parameters(model) / block_parameters(dense)
        return shares


def prune(model: PreTrainedModel, importance: str, ratio: float, *, hidden: bool) -> None:
    """In place. For TAYLOR the parameters hold their gradients."""
    tp, fused = library(), model.config._attn_implementation
    kinds = {MAGNITUDE: lambda: tp.importance.GroupMagnitudeImportance(p=2, group_reduction="mean")}
    kinds[TAYLOR] = tp.importance.GroupTaylorImportance
    model.set_attn_implementation("eager")
    with patch.object(modeling_llama, "rotate_half", lambda x: x):
        pruner = tp.pruner.MetaPruner(model, **_settings(model, kinds[importance](), ratio, hidden=hidden))
    for group in pruner.step(interactive=True):
        group.prune()
    model.set_attn_implementation(fused)
    if model.config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight  # cut alike, but each on its own
    for attention in _attentions(model):
        attention.num_key_value_groups = attention.q_proj.out_features // attention.k_proj.out_features


def _settings(model: PreTrainedModel, importance: Any, ratio: float, *, hidden: bool) -> dict[str, Any]:
    """Of its example."""
    return {
        "unwrapped_parameters": [(norm, 0) for norm in _norms(model)],  # as it would find out, with a warning
        "example_inputs": torch.arange(TRACED_TOKENS)[None],
        "forward_fn": lambda model, ids_BT: model(ids_BT, use_cache=False).logits,
        "importance": importance,
        "global_pruning": False,
        "pruning_ratio": ratio,
        "ignored_layers": [model.lm_head] if hidden else [model.lm_head, *_writers_of_hidden(model)],
        "num_heads": _heads(model),
        "prune_num_heads": True,
        "prune_head_dims": False,
        "head_pruning_ratio": ratio,
        "round_to": 4,
    }


def _heads(model: PreTrainedModel) -> dict[nn.Module, int]:
    heads = {}
    for attention in _attentions(model):
        heads[attention.q_proj] = model.config.num_attention_heads
        heads[attention.k_proj] = heads[attention.v_proj] = model.config.num_key_value_heads
    return heads


def _writers_of_hidden(model: PreTrainedModel) -> Iterator[nn.Module]:
    for name, module in model.named_modules():
        if name.endswith(("o_proj", "down_proj", "embed_tokens")):
            yield module


def _norms(model: PreTrainedModel) -> Iterator[nn.Parameter]:
    return (parameter for parameter in model.parameters() if parameter.dim() == 1)


def _attentions(model: PreTrainedModel) -> Iterator[nn.Module]:
    return (module for name, module in model.named_modules() if name.endswith("self_attn"))
