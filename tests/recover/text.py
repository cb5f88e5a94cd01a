"""What the tests of recovery train on: windows that count upwards, and a small model pruned to 2:4."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.data.mixture import Mixture, Part, mix
from tasks.model.anatomy import find_blocks, linears_of
from tests.cases import llama

VOCABULARY, WINDOW = 17, 12
STEP = 8 * WINDOW  # the tokens of a step of eight windows


def counting(start: int, windows: int) -> Tensor:
    """ids_T that count upwards modulo 17: the next token follows from the last."""
    return torch.arange(start, start + windows * WINDOW) % VOCABULARY


def some_windows(steps: int = 12, seed: int = 0) -> Mixture:
    """Two sources, three windows of the first to one of the second; of the second every third token is only read."""
    ids_T = counting(5, 8 * steps)
    labels_T = ids_T.where(torch.arange(len(ids_T)) % 3 > 0, -100)
    parts = [
        Part(source="first", ids_T=counting(0, 8 * steps), weight=3.0),
        Part(source="second", ids_T=ids_T, labels_T=labels_T, weight=1.0),
    ]
    return mix(parts, window=WINDOW, tokens=steps * STEP, seed=seed)


def pruned_llama(**changes) -> PreTrainedModel:
    """A tiny Llama of which every linear of the blocks keeps the first and last of every four inputs."""
    model = llama(**{"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, **changes})
    with torch.no_grad():
        for linear in linears_of(find_blocks(model)[1]).values():
            linear.weight.view(-1, 4)[:, 1:3] = 0
    return model


def zeros_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """Where the weights of the blocks are zero."""
    return {name: linear.weight.detach() == 0 for name, linear in linears_of(find_blocks(model)[1]).items()}


def weights_of(model: PreTrainedModel) -> Tensor:
    """All parameters in one row."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
