"""What a model's folder must hold: a configuration, safetensors weights without NaN, the files of a tokenizer."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

CONFIG_FILES = ("config.json", "generation_config.json")
WEIGHT_FILES = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")  # one of them
TOKENIZER_FILES = (
    *VOCABULARY_FILES,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
READ_BYTES = 1 << 20


def check_folder(folder: Path) -> None:
    """Prove that `folder` holds a whole model. Reads every weight once, one tensor in memory at a time.

    Raises ValueError, in one line, for: no folder, no or unreadable config.json, weights that are absent, incomplete,
    not safetensors, damaged, NaN or infinite (the tensor is named), no tokenizer.
    """
    if not folder.is_dir():
        raise ValueError(f"model: {folder} is not a folder")
    if not (folder / "config.json").is_file():
        raise ValueError(f"model: {folder} has no config.json")
    _read_json(folder / "config.json")
    for shard in weight_shards(folder):
        _check_weights(shard)
    if not any((folder / name).is_file() for name in VOCABULARY_FILES):
        raise ValueError(f"model: {folder} has no tokenizer, one of {', '.join(VOCABULARY_FILES)} is needed")


def weight_shards(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights of a transformers folder; the index is held against what they store.

    Raises ValueError where there are none, a shard is missing, or a shard lacks a tensor that the index promises.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        pickled = " (pickled .bin weights are not read: safetensors only)" if any(folder.glob("*.bin")) else ""
        raise ValueError(f"model: {folder} has no weights, model.safetensors or its index is needed{pickled}")
    shard_of = _read_json(index)["weight_map"]
    shards = sorted({folder / name for name in shard_of.values()})
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise ValueError(f"model: {folder} lacks {len(missing)} of {len(shards)} shards: {', '.join(missing)}")
    for shard in shards:
        promised = {name for name, file in shard_of.items() if file == shard.name}
        absent = promised - set(tensor_names(shard))
        if absent:
            raise ValueError(f"model: {shard} lacks {min(absent)}, which the index places there")
    return shards


def tensor_names(shard: Path) -> list[str]:
    """The names stored in a safetensors file, sorted. Raises ValueError for a damaged file."""
    try:
        with safe_open(shard, framework="pt") as stored:
            return sorted(stored.keys())
    except SafetensorError as error:
        raise ValueError(f"model: {shard} is damaged: {error}") from error


def weight_bytes(folder: Path) -> int:
    """Bytes on disk of the safetensors files in `folder`, packed or not."""
    return sum(shard.stat().st_size for shard in folder.glob("*.safetensors"))


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of the tokenizer that are there, in a fixed order."""
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]


def fingerprint(folder: Path) -> str:
    """SHA-256, in hex, over what makes the model: configuration, weights, tokenizer; each file's name, length, bytes.

    Files that change nothing, such as a README, do not count; the order is by name.
    """
    digest = hashlib.sha256()
    for file in sorted(_model_files(folder)):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as opened:
            while part := opened.read(READ_BYTES):
                digest.update(part)
    return digest.hexdigest()


def _model_files(folder: Path) -> Iterator[Path]:
    for name in (*CONFIG_FILES, *TOKENIZER_FILES, "*.safetensors", "*.safetensors.index.json", "packing.json"):
        yield from folder.glob(name)


def _check_weights(shard: Path) -> None:
    for name in tensor_names(shard):
        with safe_open(shard, framework="pt") as stored:
            tensor = stored.get_tensor(name)
        if tensor.is_floating_point() and not _is_finite(tensor):
            raise ValueError(f"model: {name} in {shard} holds NaN or infinite values")


def _is_finite(tensor: Tensor) -> bool:
    """The extremes tell: NaN propagates to both. Several times faster than a flag for every value."""
    if tensor.numel() == 0:
        return True
    extremes = torch.stack(tensor.float().aminmax() if tensor.itemsize == 1 else tensor.aminmax())
    return bool(extremes.isfinite().all())


def _read_json(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"model: {file} is not JSON: {error}") from error
