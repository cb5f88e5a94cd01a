"""The profiles of a model as a folder: only what they change, to be put upon the same model again.

    profiles.safetensors   for each profile, by its number: the units that stay, and the weights that a plain cut would
                           not give
    profiles.json          their names and the blocks they remove, and the hash of the model; written last

The same profiles give the same bytes.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from tasks.prune.sidecar import Sidecar
from tasks.prune.structure.profiles import Profile, Profiles

FILES = Sidecar(name="profiles", format="espalier profiles")


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
    save_file(dict(sorted(tensors.items())), folder / FILES.tensors, {"format": "pt"})
    FILES.write_index(folder, model_hash, {"profiles": entries})


def load_profiles(model: PreTrainedModel, model_hash: str, folder: Path) -> Profiles:
    """The profiles in `folder`, built upon `model`, which has to be the one they were made of.

    Raises ValueError for a folder without profiles, those of another model or a later version, damaged tensors, and an
    index that does not go with them.
    """
    index, tensors = FILES.read(folder, model_hash)
    profiles = Profiles(model)
    try:
        for number, entry in enumerate(index["profiles"]):
            profiles.add(_profile(entry, number, tensors))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"profiles: {folder / FILES.index} does not fit its tensors: {error}") from error
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
