"""The state of a training on disk: weights, optimizer and everything else, in one safetensors file; nothing is pickled.

What is no tensor stands in the file's header as JSON, so that one rename makes all of it whole at once. Only what is
trained is kept: of a model with adapters, these alone. A parameter that FSDP has spread over processes is gathered
when it is written and spread again when it is read, so the number of processes may change in between.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from transformers import PreTrainedModel


def name_training(facts: Mapping[str, Any], *tensors: Tensor) -> str:
    """SHA-256 over what a training is of: facts that JSON can hold, and tensors."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for tensor in tensors:
        digest.update(json.dumps([str(tensor.dtype), *tensor.shape]).encode())
        digest.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def config_of(model: PreTrainedModel) -> dict[str, Any]:
    """The configuration as a fact of a training; a later version of transformers goes on with the same model."""
    return model.config.to_dict() | {"transformers_version": None}


def save(
    path: Path,
    model: nn.Module,
    optimizers: Mapping[str, Optimizer],
    facts: Mapping[str, Any],
    training: str,
    writes: bool = True,
) -> None:
    """Write the trained parameters, the optimizers' state, `facts` and the training's name; rename when it is whole.

    Of several processes all must call it, and one `writes`.
    """
    tensors = {}
    for name, parameter in trained_in(model).items():
        kept = {f"model/{name}": parameter.detach()}
        for optimizer_name, optimizer in optimizers.items():
            fields = optimizer.state.get(parameter, {})
            kept |= {f"{optimizer_name}/{name}/{field}": value for field, value in fields.items()}
        for key, value in kept.items():
            whole = gathered(value)
            if writes:
                tensors[key] = whole
    if not writes:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    save_file(tensors, aside, metadata={"facts": json.dumps(facts), "training": training})
    aside.rename(path)


@torch.no_grad()
def restore(path: Path, model: nn.Module, optimizers: Mapping[str, Optimizer], training: str) -> dict[str, Any]:
    """Bring back the parameters and the optimizers' state that `save` wrote, in place; return the facts.

    ValueError for the state of another training.
    """
    parameters = trained_in(model)
    with safe_open(path, "pt") as stored:
        if stored.metadata().get("training") != training:
            raise ValueError(f"checkpoint: {path} is of another text, recipe or model; delete it to begin anew")
        for optimizer in optimizers.values():
            optimizer.state.clear()
        for key in stored.keys():  # noqa: SIM118 (not a dict)
            owner, name, *field = key.split("/")
            parameter, tensor = parameters[name], stored.get_tensor(key)
            if owner == "model":
                parameter.copy_(placed(tensor, parameter))
            else:
                optimizers[owner].state[parameter][field[0]] = placed(tensor, parameter)
        facts: dict[str, Any] = json.loads(stored.metadata()["facts"])
    return facts


def gathered(tensor: Tensor) -> Tensor:
    """The whole of a tensor in the CPU's memory; of one that is spread, all processes must ask for it."""
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.cpu().contiguous()


def placed(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor put where `like` lies, and spread as it is; one of another shape, an optimizer's counter, stays."""
    if tensor.shape != like.shape:
        return tensor
    if isinstance(like, DTensor):
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
    return tensor.to(like.device)


def trained_in(model: nn.Module) -> dict[str, nn.Parameter]:
    """By name, each once also where parameters are tied."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
