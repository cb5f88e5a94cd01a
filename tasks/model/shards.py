"""Writing a checkpoint of which parts are on disk already, without having it in memory."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from tasks.model.folder import CONFIG_FILES, INDEX, tensor_names, tokenizer_files

ONE_FILE_BYTES = 1 << 30  # up to which a checkpoint is one file, as transformers has it


def save_parts(
    model: PreTrainedModel, parts: Sequence[Path], source: Path, folder: Path, one_file_bytes: int = ONE_FILE_BYTES
) -> None:
    """Write `model` into `folder` with the configuration and the tokenizer of the folder `source`.

    `parts`: safetensors files that hold some of its tensors as they are now, by their names in the model. They become
    shards by a link, where the file system has links; all other tensors, of a model of tasks.model.mapped, are copied
    from file to file.
    """
    tensors = _tensors_of(model)
    total = sum(tensor.nbytes for tensor in tensors.values())
    if total <= one_file_bytes:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    else:
        file_of: dict[str, str] = {}
        for number, part in enumerate(parts, start=1):
            shard = _shard_name(number, len(parts) + 1)
            _link(part, folder / shard)
            file_of |= dict.fromkeys(tensor_names(part), shard)
        shard = _shard_name(len(parts) + 1, len(parts) + 1)
        rest = {name: tensor for name, tensor in tensors.items() if name not in file_of}
        save_file(rest, folder / shard, {"format": "pt"})
        file_of |= dict.fromkeys(rest, shard)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(file_of.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for file in [source / name for name in CONFIG_FILES if (source / name).is_file()] + tokenizer_files(source):
        shutil.copyfile(file, folder / file.name)


def _tensors_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """What a checkpoint holds: of tied parameters the first alone."""
    state = model.state_dict(keep_vars=True)
    first_name = {id(tensor): name for name, tensor in reversed(state.items())}
    return {name: tensor.detach().contiguous() for name, tensor in state.items() if first_name[id(tensor)] == name}


def _shard_name(number: int, count: int) -> str:
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def _link(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:  # a file system without links
        shutil.copyfile(file, name)
