"""What a model's folder must hold: a configuration, safetensors weights without NaN, the files of a tokenizer."""

import hashlib
import time
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tasks.model.trust import check_blocks, check_links, file_in, read_object

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
PACKING = "packing.json"  # its presence makes a folder a packed one (tasks.prune.pack)
INDEX = "model.safetensors.index.json"
READ_BYTES = 1 << 20
CLOCK_TICK_NS = 2_000_000_000  # of the coarsest clock by which a file system dates changes

BESIDE = ("activation", "profiles", "policy")  # what is put upon a model: tasks.prune.sidecar

# A file at one moment: path, time of the last change, bytes, and 0, or else what makes the version unlike any other.
Version = tuple[Path, int, int, int]


def check_folder(folder: Path) -> None:
    """Prove that `folder` holds a whole model. Reads every weight once, one tensor in memory at a time.

    What has passed is not read again by this process until it changes.

    Raises ValueError, in one line, for: no folder, no or unreadable config.json, weights that are absent, incomplete,
    not safetensors, damaged, NaN or infinite (the tensor is named), no tokenizer, and what tasks.model.trust refuses.
    """
    if not folder.is_dir():
        raise ValueError(f"model: {folder} is not a folder")
    if not (folder / "config.json").is_file():
        beside = next((name for name in BESIDE if (folder / f"{name}.json").is_file()), None)
        what = f"; it holds what goes with another model, {beside}.json" if beside else ""
        raise ValueError(f"model: {folder} has no config.json{what}")
    config, shards = read_object(folder / "config.json", "model"), weight_shards(folder)
    check_blocks(config, sum(len(tensor_names(shard)) for shard in shards), folder)
    for shard in shards:
        _check_weights(_version(shard))
    if not any((folder / name).is_file() for name in VOCABULARY_FILES):
        raise ValueError(f"model: {folder} has no tokenizer, one of {', '.join(VOCABULARY_FILES)} is needed")
    check_links(folder, _model_files(folder))


def weight_shards(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights of a transformers folder; the index is held against what they store.

    Raises ValueError where there are none, a shard is missing, or a shard lacks a tensor that the index promises.
    """
    shards = _named_shards(folder)
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise ValueError(f"model: {folder} lacks {len(missing)} of {len(shards)} shards: {', '.join(missing)}")
    for shard, promised in shards.items():
        absent = promised and promised - set(tensor_names(shard))
        if absent:
            raise ValueError(f"model: {shard} lacks {min(absent)}, which the index places there")
    return list(shards)


def tensor_names(shard: Path) -> list[str]:
    """The names stored in a safetensors file, sorted. Raises ValueError for a damaged file."""
    return list(_read_names(_version(shard)))


def weight_bytes(folder: Path) -> int:
    """Bytes on disk of the files that hold the weights of `folder`, packed or not; others that lie there do not count.

    Raises ValueError where there are none or a shard is missing.
    """
    shards = _packed_shards(folder) if (folder / PACKING).is_file() else weight_shards(folder)
    return sum(shard.stat().st_size for shard in shards)


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of the tokenizer that are there, in a fixed order."""
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]


def fingerprint(folder: Path) -> str:
    """SHA-256, in hex, over what makes the model: configuration, weights, tokenizer; each file's name, length, bytes.

    Files that change nothing, such as a README or weights that nobody loads, do not count; the order is by name. This
    process reads the files again only when one of them changes. Raises ValueError for a folder without weights.
    """
    return _hash_files(tuple(_version(file) for file in sorted(_model_files(folder)) if file.is_file()))


def _named_shards(folder: Path) -> dict[Path, set[str]]:
    """The shards by name, as transformers chooses them, with the tensors that the index promises of each."""
    single, index = folder / "model.safetensors", folder / INDEX
    if single.is_file():
        return {single: set()}
    if not index.is_file():
        pickled = " (pickled .bin weights are not read: safetensors only)" if any(folder.glob("*.bin")) else ""
        raise ValueError(f"model: {folder} has no weights, model.safetensors or its index is needed{pickled}")
    shard_of = read_object(index, "model").get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise ValueError(f"model: {index} has no weight_map that names its shards")
    promised: dict[Path, set[str]] = {}
    for tensor, name in sorted(shard_of.items(), key=lambda entry: str(entry[1])):
        promised.setdefault(file_in(folder, name, "model"), set()).add(tensor)
    return promised


def _packed_shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("packed-*.safetensors"))


def _model_files(folder: Path) -> list[Path]:
    if (folder / PACKING).is_file():
        weights = [folder / PACKING, *_packed_shards(folder)]
    else:
        shards = _named_shards(folder)
        weights = [*shards] if folder / "model.safetensors" in shards else [folder / INDEX, *shards]
    return [folder / name for name in CONFIG_FILES] + tokenizer_files(folder) + weights


def _version(file: Path) -> Version:
    """Equal for two calls only if the file is the same; one changed just now may change again without a later date."""
    stat, now = file.stat(), time.time_ns()
    return file.absolute(), stat.st_mtime_ns, stat.st_size, now if now - stat.st_mtime_ns < CLOCK_TICK_NS else 0


@cache
def _hash_files(versions: tuple[Version, ...]) -> str:
    digest = hashlib.sha256()
    for file, _, size, _ in versions:
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as opened:
            while part := opened.read(READ_BYTES):
                digest.update(part)
    return digest.hexdigest()


@cache
def _read_names(version: Version) -> tuple[str, ...]:
    shard = version[0]
    try:
        with safe_open(shard, framework="pt") as stored:
            return tuple(sorted(stored.keys()))
    except SafetensorError as error:
        raise ValueError(f"model: {shard} is damaged: {error}") from error


@cache
def _check_weights(version: Version) -> None:
    shard = version[0]
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
