"""The way back from a packed folder (tasks.prune.pack): to its tensors, to a model, to a folder for transformers."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from tasks.model.folder import CONFIG_FILES, tokenizer_files
from tasks.model.folder import INDEX as SHARD_INDEX
from tasks.model.load import model_from
from tasks.model.trust import file_in, read_object
from tasks.prune.factors import merge
from tasks.prune.orders import check_order
from tasks.prune.packing import PACKINGS
from tasks.prune.semi_structured import to_semi_structured
from tasks.prune.shards import SHARD_BYTES, Shards

INDEX = "packing.json"
FORMAT, VERSION = "espalier-packed", 1
PARTS = ("left", "mask", "order", "positions", "right", "values")


def read_packed(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of a packed folder by its name, unpacked, one at a time; every part is held against its SHA-256.

    Raises ValueError for a folder that is not packed, not whole or damaged (the tensor is named).
    """
    for name, entry in _read_index(folder).items():
        file = file_in(folder, entry["file"], "packed")
        parts = _read_parts(file, name)
        if digest(parts) != entry["sha256"]:
            raise ValueError(f"packed: {name} in {file} is damaged: its bytes are not those that were written")
        try:
            packing = PACKINGS[entry["format"]](**entry["options"])
            weight = packing.unpack(parts, tuple(entry["shape"]))
            if "rank" in entry:
                weight = _add_product(weight, parts["left"], parts["right"], entry["rank"])
            if "order" in parts:
                weight = _in_place(name, weight, parts["order"])
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            raise ValueError(f"packed: {name} in {file} is damaged: {error}".partition("\n")[0]) from error
        if dtype_name(weight) != entry["dtype"]:
            raise ValueError(f"packed: {name} in {file} is {dtype_name(weight)}, {INDEX} says {entry['dtype']}")
        yield name, weight


def load_packed(folder: Path | str, device: str = "cpu", semi_structured: bool | None = None) -> PreTrainedModel:
    """The model of a packed folder, in eval mode on `device`, its weights the same bits as before packing.

    On the CPU all weights are dense again: the file is smaller, memory and time are not. On CUDA the 2:4 linears that
    the kernels take become `torch.sparse` semi-structured tensors, unless `semi_structured` is False; not those with a
    stored order, which are 2:4 in that order alone. Linears with factors are dense everywhere: S + A B, in float64,
    comes to the same bits as when it was pruned, but another machine may round a rare sum to the neighbouring number.

    Raises ValueError as `read_packed` does, and where `semi_structured` is True but there is no CUDA device or nothing
    that its kernels take.
    """
    folder, on_cuda = Path(folder), torch.device(device).type == "cuda"
    if semi_structured and not on_cuda:
        raise ValueError(f"semi_structured: needs CUDA, the device is {device}; leave it out for dense weights")
    model = model_from(dict(read_packed(folder)), folder, device)
    if on_cuda and semi_structured is not False and not to_semi_structured(model) and semi_structured:
        raise ValueError(f"semi_structured: no linear of {folder} is 2:4 in a dtype and shape that the kernels take")
    return model


def unpack_checkpoint(source: Path, target: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write what was packed into `source` into the folder `target`, for transformers: the same weights, bit for bit.

    Tensor by tensor; what is held are those of one file, up to `shard_bytes`. Raises ValueError as `read_packed` does.
    """
    target.mkdir(parents=True, exist_ok=True)
    shards = Shards(target, "model", shard_bytes, {"format": "pt"})
    file_of = {name: shards.add({name: weight}) for name, weight in read_packed(source)}
    shards.finish()
    index = {"metadata": {"total_size": unpacked_bytes(source)}, "weight_map": file_of}
    (target / SHARD_INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    copy_companions(source, target)


def is_packed(folder: Path) -> bool:
    return (folder / INDEX).is_file()


def unpacked_bytes(folder: Path) -> int:
    """What the weights of a packed folder take once they are unpacked. Raises ValueError where it is not packed."""
    entries = _read_index(folder).values()
    return sum(prod(entry["shape"]) * getattr(torch, entry["dtype"]).itemsize for entry in entries)


def copy_companions(source: Path, target: Path) -> None:
    """The configuration and the tokenizer, as they are."""
    for file in [source / name for name in CONFIG_FILES if (source / name).is_file()] + tokenizer_files(source):
        shutil.copyfile(file, target / file.name)


def digest(parts: Mapping[str, Tensor]) -> str:
    """SHA-256, in hex, over the names, lengths and bytes of the parts of a tensor."""
    found = hashlib.sha256()
    for name in sorted(parts):
        found.update(f"{name}\0{parts[name].numel()}\0".encode())
        found.update(parts[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _read_index(folder: Path) -> dict[str, dict[str, Any]]:
    if not is_packed(folder):
        raise ValueError(f"packed: {folder} has no {INDEX}, it is no packed checkpoint or an unfinished one")
    index = read_object(folder / INDEX, "packed")
    if (index.get("format"), index.get("version")) != (FORMAT, VERSION):
        raise ValueError(
            f"packed: {folder / INDEX} is {index.get('format')} {index.get('version')}, {FORMAT} {VERSION} can be read"
        )
    tensors = index.get("tensors")
    if not isinstance(tensors, dict):
        raise ValueError(f"packed: {folder / INDEX} lists no tensors")
    for name, entry in tensors.items():
        if not isinstance(entry, dict) or not _is_whole(entry):
            raise ValueError(f"packed: {folder / INDEX} does not say how {name} is packed, in a way that is known")
    return tensors


def _is_whole(entry: Mapping[str, Any]) -> bool:
    """Whether an entry says all that is read of it; the file's name and the options of the format are seen to there."""
    shape, dtype = entry.get("shape"), entry.get("dtype")
    return (
        {"file", "sha256", "options"} <= entry.keys()
        and entry.get("format") in PACKINGS
        and isinstance(shape, list)
        and all(isinstance(size, int) and size >= 0 for size in shape)
        and isinstance(dtype, str)
        and isinstance(getattr(torch, dtype, None), torch.dtype)
    )


def _read_parts(file: Path, name: str) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as stored:
            names = [part for part in PARTS if f"{name}.{part}" in stored.keys()]  # noqa: SIM118
            return {part: stored.get_tensor(f"{name}.{part}") for part in names}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"packed: {name} cannot be read from {file}: {error}") from error


def _add_product(sparse_OI: Tensor, left_Or: Tensor, right_rI: Tensor, rank: int) -> Tensor:
    outputs, inputs = sparse_OI.shape
    if left_Or.shape != (outputs, rank) or right_rI.shape != (rank, inputs):
        raise ValueError(f"factors of {list(left_Or.shape)} and {list(right_rI.shape)} are stored, the rank is {rank}")
    return merge(sparse_OI, left_Or, right_rI)


def _in_place(name: str, weight_OI: Tensor, order_I: Tensor) -> Tensor:
    """The columns where the model has them: stored column j is input `order_I[j]`."""
    check_order(name, order_I, weight_OI.shape[1])
    return weight_OI[:, order_I.long().argsort()].contiguous()
