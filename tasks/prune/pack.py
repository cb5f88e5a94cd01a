"""Packed checkpoints: a model's folder in which the pruned matrices take less room, and the way back into a model.

    packed-00001.safetensors …   `<tensor>.values`, with `<tensor>.mask` or `<tensor>.positions` (tasks.prune.packing);
                                 where `<tensor>.left` and `<tensor>.right` are too, their product is added to these;
                                 where `<tensor>.order` is, the columns are stored in that order
    packing.json                 how each tensor is packed, its shape and dtype, the rank of its factors if it has some,
                                 its file, the SHA-256 of its parts
    config.json, tokenizer …     copied as they are

transformers finds no weights in such a folder and says so; it cannot take it for a model with missing tensors.
The same weights and pattern give the same bytes. packing.json is written last: a folder without it is unfinished.
"""

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from tasks.model.folder import CONFIG_FILES, tensor_names, tokenizer_files, weight_shards
from tasks.model.load import model_from
from tasks.prune.factors import FactorFiles, SparseLowRank, merge
from tasks.prune.orders import check_order, read_orders
from tasks.prune.packing import PACKINGS, Packing, as_integers, choose_packing
from tasks.prune.semi_structured import to_semi_structured
from tasks.prune.weight.pattern import Pattern

INDEX = "packing.json"
FORMAT, VERSION = "espalier-packed", 1
SHARD_BYTES = 2 << 30
PARTS = ("left", "mask", "order", "positions", "right", "values")


@dataclass(frozen=True, kw_only=True)
class PackedTensor:
    """One tensor of the checkpoint; `format` is dense, empty, bitmask or nm, and "+lowrank" if it has factors."""

    name: str
    format: str
    dense_bytes: int
    packed_bytes: int


@dataclass(frozen=True, kw_only=True)
class PackedSummary:
    """What became of each tensor, in the order they are stored."""

    tensors: tuple[PackedTensor, ...]


def pack_checkpoint(
    source: Path,
    target: Path,
    pattern: Pattern | None = None,
    pruned: Collection[str] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> PackedSummary:
    """Pack the transformers folder `source`, whose linears hold zeros, into the folder `target`.

    Every matrix gets its smallest packing; with an n:m `pattern`, values and positions where they pay. What would not
    be smaller stays dense. `pruned` names the tensors that the pattern speaks of, such as
    "model.layers.0.self_attn.q_proj.weight"; zeros of all others, an embedding's say, are taken as they come. Without
    it the pattern speaks of every matrix. Of a tensor with factors in `source` (tasks.prune.factors), the sparse part
    is packed, by its own pattern, and the factors with it. The source is read tensor by tensor; what is held are the
    packed tensors of one file, up to `shard_bytes`.

    Raises ValueError where `target` holds a packed checkpoint already, `source` is not whole or has no tensor of a name
    in `pruned`, a sparse part and its factors do not add up to their tensor, or a pruned matrix with the zeros of the
    n:m pattern has them in other places (the tensor, row and input are named).
    """
    target.mkdir(parents=True, exist_ok=True)
    if any(target.glob("packed-*")) or (target / INDEX).exists():
        raise ValueError(f"target: {target} holds a packed checkpoint already")
    file_of = {name: shard for shard in weight_shards(source) for name in tensor_names(shard)}
    if unknown := set(pruned or ()) - file_of.keys():
        raise ValueError(f"pruned: {source} has no tensor {min(unknown)!r}")
    factors, orders = FactorFiles(source, file_of), read_orders(source, file_of)
    entries, rows, shard, filled, shards = {}, [], dict[str, Tensor](), 0, 1
    for name, weight in _read_tensors(file_of):
        own_pattern = pattern if pruned is None or name in pruned else None
        if name in factors:
            packing, parts = _pack_low_rank(name, weight, factors.read(name))
        elif name in orders:
            packing, parts = _pack_ordered(name, weight, own_pattern, orders[name])
        else:
            packing, parts = _pack_verified(name, weight, own_pattern)
        size = sum(part.numel() * part.itemsize for part in parts.values())
        if shard and filled + size > shard_bytes:
            save_file(shard, target / _shard_name(shards))
            shard, filled, shards = {}, 0, shards + 1
        shard |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
        filled += size
        entries[name] = _describe(packing, weight, parts) | {"file": _shard_name(shards)}
        dense_bytes = weight.numel() * weight.itemsize
        stored_as = packing.name + ("+lowrank" if name in factors else "")
        rows.append(PackedTensor(name=name, format=stored_as, dense_bytes=dense_bytes, packed_bytes=size))
    save_file(shard, target / _shard_name(shards))
    for file in [source / name for name in CONFIG_FILES if (source / name).is_file()] + tokenizer_files(source):
        shutil.copyfile(file, target / file.name)
    index = {"format": FORMAT, "version": VERSION, "tensors": entries}
    (target / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    return PackedSummary(tensors=tuple(rows))


def load_packed(folder: Path | str, device: str = "cpu", semi_structured: bool | None = None) -> PreTrainedModel:
    """The model of a packed folder, in eval mode on `device`, its weights the same bits as before packing.

    On the CPU all weights are dense again: the file is smaller, memory and time are not. On CUDA the 2:4 linears that
    the kernels take become `torch.sparse` semi-structured tensors, unless `semi_structured` is False; not those with a
    stored order, which are 2:4 in that order alone. Linears with factors are dense everywhere: S + A B, in float64,
    comes to the same bits as when it was pruned, but another machine may round a rare sum to the neighbouring number.

    Raises ValueError for a folder that is not packed, not whole or damaged (the tensor is named), and where
    `semi_structured` is True but there is no CUDA device or nothing that its kernels take.
    """
    folder, on_cuda = Path(folder), torch.device(device).type == "cuda"
    if semi_structured and not on_cuda:
        raise ValueError(f"semi_structured: needs CUDA, the device is {device}; leave it out for dense weights")
    model = model_from(dict(read_packed(folder)), folder, device)
    if on_cuda and semi_structured is not False and not to_semi_structured(model) and semi_structured:
        raise ValueError(f"semi_structured: no linear of {folder} is 2:4 in a dtype and shape that the kernels take")
    return model


def read_packed(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of a packed folder by its name, unpacked, one at a time; every part is held against its SHA-256."""
    for name, entry in _read_index(folder).items():
        file = folder / entry["file"]
        parts = _read_parts(file, name)
        if _digest(parts) != entry["sha256"]:
            raise ValueError(f"packed: {name} in {file} is damaged: its bytes are not those that were written")
        try:
            packing = PACKINGS[entry["format"]](**entry["options"])
            weight = packing.unpack(parts, tuple(entry["shape"]))
            if "rank" in entry:
                weight = _add_product(weight, parts["left"], parts["right"], entry["rank"])
            if "order" in parts:
                weight = _in_place(name, weight, parts["order"])
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"packed: {name} in {file} is damaged: {error}") from error
        if _dtype_name(weight) != entry["dtype"]:
            raise ValueError(f"packed: {name} in {file} is {_dtype_name(weight)}, {INDEX} says {entry['dtype']}")
        yield name, weight


def _read_tensors(file_of: Mapping[str, Path]) -> Iterator[tuple[str, Tensor]]:
    for name in sorted(file_of):
        with safe_open(file_of[name], framework="pt") as stored:
            yield name, stored.get_tensor(name)


def _pack_verified(name: str, weight: Tensor, pattern: Pattern | None) -> tuple[Packing, dict[str, Tensor]]:
    try:
        packing = choose_packing(weight, pattern)
    except ValueError as error:
        raise ValueError(f"{error} ({name})") from error
    parts = packing.pack(weight)
    if not torch.equal(as_integers(packing.unpack(parts, tuple(weight.shape))), as_integers(weight)):
        raise RuntimeError(f"{name} does not come back from {packing}")
    return packing, parts


def _pack_low_rank(name: str, weight: Tensor, stored: SparseLowRank) -> tuple[Packing, dict[str, Tensor]]:
    merged = stored.merged_OI()
    if merged.shape != weight.shape or merged.dtype != weight.dtype:
        raise ValueError(f"factors: {name} is {_dtype_name(merged)} {list(merged.shape)}, but not in the checkpoint")
    rounding = torch.finfo(weight.dtype).eps * float(weight.abs().max())
    if not torch.allclose(merged, weight, rtol=0, atol=rounding):
        raise ValueError(f"factors: what is stored of {name} does not add up to the weight: was it changed since?")
    packing, parts = _pack_verified(name, stored.sparse_OI, stored.pattern)
    return packing, parts | {"left": stored.left_Or, "right": stored.right_rI}


def _pack_ordered(
    name: str, weight_OI: Tensor, pattern: Pattern | None, order_I: Tensor
) -> tuple[Packing, dict[str, Tensor]]:
    if len(order_I) != weight_OI.shape[1]:
        raise ValueError(f"orders: {len(order_I)} inputs given, {name} has {weight_OI.shape[1]}")
    packing, parts = _pack_verified(name, weight_OI[:, order_I.long()], pattern)
    return packing, parts | {"order": order_I}


def _in_place(name: str, weight_OI: Tensor, order_I: Tensor) -> Tensor:
    """The columns where the model has them: stored column j is input `order_I[j]`."""
    check_order(name, order_I, weight_OI.shape[1])
    return weight_OI[:, order_I.long().argsort()].contiguous()


def _add_product(sparse_OI: Tensor, left_Or: Tensor, right_rI: Tensor, rank: int) -> Tensor:
    outputs, inputs = sparse_OI.shape
    if left_Or.shape != (outputs, rank) or right_rI.shape != (rank, inputs):
        raise ValueError(f"factors of {list(left_Or.shape)} and {list(right_rI.shape)} are stored, the rank is {rank}")
    return merge(sparse_OI, left_Or, right_rI)


def _describe(packing: Packing, weight: Tensor, parts: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "format": packing.name,
        "options": asdict(packing),
        "shape": list(weight.shape),
        "dtype": _dtype_name(weight),
        "sha256": _digest(parts),
    } | ({"rank": len(parts["right"])} if "right" in parts else {})


def _read_index(folder: Path) -> dict[str, dict[str, Any]]:
    if not (folder / INDEX).is_file():
        raise ValueError(f"packed: {folder} has no {INDEX}, it is no packed checkpoint or an unfinished one")
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"packed: {folder / INDEX} is not JSON: {error}") from error
    if (index.get("format"), index.get("version")) != (FORMAT, VERSION):
        raise ValueError(
            f"packed: {folder / INDEX} is {index.get('format')} {index.get('version')}, {FORMAT} {VERSION} can be read"
        )
    return index["tensors"]


def _read_parts(file: Path, name: str) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as stored:
            names = [part for part in PARTS if f"{name}.{part}" in stored.keys()]  # noqa: SIM118
            return {part: stored.get_tensor(f"{name}.{part}") for part in names}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"packed: {name} cannot be read from {file}: {error}") from error


def _digest(parts: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(parts):
        digest.update(f"{name}\0{parts[name].numel()}\0".encode())
        digest.update(parts[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _shard_name(number: int) -> str:
    return f"packed-{number:05d}.safetensors"


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
