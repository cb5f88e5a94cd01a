"""The profiles of a model as a folder: only what they change, to be put upon the same model again.

    profiles.safetensors   for each profile, by its number: the units that stay, and the weights that a plain cut would
                           not give
    profiles.json          their names and the blocks they remove, and the hash of the model; written last

The same profiles give the same bytes.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from tasks.prune.structure.profiles import Profile, Profiles

INDEX, TENSORS = "profiles.json", "profiles.safetensors"
FORMAT, VERSION = "espalier profiles", 1


def save_profiles(profiles: Profiles, model_hash: str, folder: Path) -> None:
    """Write all profiles but "none". `model_hash`: of the uncut model (tasks.model.folder.fingerprint)."""
    tensors: dict[str, Tensor] = {}
    entries = []
    for number, name in enumerate(profiles.names[1:]):
        profile = profiles.get(name)
        for block, kinds in profile.kept.items():
            for kind, kept_U in kinds.items():
                tensors[f"{number}/kept/{block}/{kind}"] = kept_U.to("cpu", torch.int32)
        for parameter, weight in profile.weights.items():
            tensors[f"{number}/weights/{parameter}"] = weight.cpu().contiguous()
        removed = {"blocks": profile.blocks, "attention": profile.attention, "ffn": profile.ffn}
        entries.append({"name": name, **{what: list(indices) for what, indices in removed.items()}})
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(sorted(tensors.items())), folder / TENSORS, {"format": "pt"})
    index = {"format": FORMAT, "version": VERSION, "model_hash": model_hash, "profiles": entries}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def load_profiles(model: PreTrainedModel, model_hash: str, folder: Path) -> Profiles:
    """The profiles in `folder`, built upon `model`, which has to be the one they were made of.

    Raises ValueError for a folder without profiles, those of another model or a later version, damaged tensors.
    """
    index = _read_index(folder / INDEX)
    if index["model_hash"] != model_hash:
        raise ValueError(f"profiles: {folder} is of model {index['model_hash']}, valid is one of {model_hash}")
    try:
        tensors = load_file(folder / TENSORS)
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"profiles: {folder / TENSORS} cannot be read: {error}") from error
    profiles = Profiles(model)
    for number, entry in enumerate(index["profiles"]):
        profiles.add(_profile(entry, number, tensors))
    return profiles


def _profile(entry: dict, number: int, tensors: dict[str, Tensor]) -> Profile:
    kept: dict[int, dict[str, Tensor]] = {}
    weights: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        of_number, what, rest = name.split("/", 2)
        if int(of_number) == number and what == "kept":
            block, kind = rest.split("/")
            kept.setdefault(int(block), {})[kind] = tensor.long()
        elif int(of_number) == number:
            weights[rest] = tensor
    return Profile(kept=kept, weights=weights, **entry)


def _read_index(file: Path) -> dict:
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"profiles: {file} cannot be read: {error}") from error
    if (index.get("format"), index.get("version")) != (FORMAT, VERSION):
        given = f"{index.get('format')} of version {index.get('version')}"
        raise ValueError(f"profiles: {file} is {given}, valid is {FORMAT} of version {VERSION}")
    return index
