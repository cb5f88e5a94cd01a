"""Packed checkpoints: a model's folder in which the pruned matrices take less room. The way back: tasks.prune.unpack.

    packed-00001.safetensors …   `<tensor>.values`, with `<tensor>.mask` or `<tensor>.positions` (tasks.prune.packing);
                                 where `<tensor>.left` and `<tensor>.right` are too, their product is added to these;
                                 where `<tensor>.order` is, the columns are stored in that order
    packing.json                 how each tensor is packed, its shape and dtype, the rank of its factors if it has some,
                                 its file, the SHA-256 of its parts
    config.json, tokenizer …     copied as they are

transformers finds no weights in such a folder and says so; it cannot take it for a model with missing tensors.
The same weights and patterns give the same bytes. packing.json is written last: a folder without it is unfinished.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from tasks.model.folder import tensor_names, weight_shards
from tasks.prune.factors import FactorFiles, SparseLowRank
from tasks.prune.orders import read_orders
from tasks.prune.packing import Packing, as_integers, choose_packing
from tasks.prune.shards import SHARD_BYTES, Shards
from tasks.prune.unpack import FORMAT, INDEX, VERSION, copy_companions, digest, dtype_name, load_packed, read_packed
from tasks.prune.weight.pattern import Pattern

__all__ = ["PackedSummary", "PackedTensor", "load_packed", "pack_checkpoint", "read_packed"]


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
    patterns: Pattern | Mapping[str, Pattern] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> PackedSummary:
    """Pack the transformers folder `source`, whose linears hold zeros, into the folder `target`.

    Every matrix gets its smallest packing; with an n:m pattern, values and positions where they pay. What would not be
    smaller stays dense. `patterns`: of each pruned tensor by its name, "model.layers.0.self_attn.q_proj.weight"; zeros
    of all others, an embedding's say, are taken as they come. One pattern speaks of every matrix. Of a tensor with
    factors in `source` (tasks.prune.factors), the sparse part is packed, by its own pattern, and the factors with it.
    The source is read tensor by tensor; what is held are the packed tensors of one file, up to `shard_bytes`.

    Raises ValueError where `target` holds a packed checkpoint already, `source` is not whole or has no tensor of a name
    in `patterns`, a sparse part and its factors do not add up to their tensor, or a matrix with the zeros of its n:m
    pattern has them in other places (the tensor, row and input are named).
    """
    target.mkdir(parents=True, exist_ok=True)
    if any(target.glob("packed-*")) or (target / INDEX).exists():
        raise ValueError(f"target: {target} holds a packed checkpoint already")
    file_of = {name: shard for shard in weight_shards(source) for name in tensor_names(shard)}
    named = patterns if isinstance(patterns, Mapping) else dict.fromkeys(file_of, patterns)
    if unknown := named.keys() - file_of.keys():
        raise ValueError(f"patterns: {source} has no tensor {min(unknown)!r}")
    factors, orders = FactorFiles(source, file_of), read_orders(source, file_of)
    entries, rows, shards = {}, [], Shards(target, "packed", shard_bytes)
    for name, weight in _read_tensors(file_of):
        if name in factors:
            packing, parts = _pack_low_rank(name, weight, factors.read(name))
        elif name in orders:
            packing, parts = _pack_ordered(name, weight, named.get(name), orders[name])
        else:
            packing, parts = _pack_verified(name, weight, named.get(name))
        entries[name] = _describe(packing, weight, parts) | {"file": shards.add(_named(name, parts))}
        row = PackedTensor(
            name=name,
            format=packing.name + ("+lowrank" if name in factors else ""),
            dense_bytes=weight.nbytes,
            packed_bytes=sum(part.nbytes for part in parts.values()),
        )
        rows.append(row)
    shards.finish()
    copy_companions(source, target)
    index = {"format": FORMAT, "version": VERSION, "tensors": entries}
    (target / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    return PackedSummary(tensors=tuple(rows))


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
        raise ValueError(f"factors: {name} is {dtype_name(merged)} {list(merged.shape)}, but not in the checkpoint")
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


def _named(name: str, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{part}": tensor for part, tensor in parts.items()}


def _describe(packing: Packing, weight: Tensor, parts: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "format": packing.name,
        "options": asdict(packing),
        "shape": list(weight.shape),
        "dtype": dtype_name(weight),
        "sha256": digest(parts),
    } | ({"rank": len(parts["right"])} if "right" in parts else {})
