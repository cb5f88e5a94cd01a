"""Making a cut in depth, and its rows: what went whole, and what the blocks have that are left."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from tasks.calibrate.importance.importance import BLOCKS
from tasks.handles import SliceRow
from tasks.model.units import BlockUnits, units_of
from tasks.prune.structure.apply import slice_model
from tasks.prune.structure.choose_depth import Piece, slice_depth
from tasks.prune.structure.rows import RemovalRow
from tasks.prune.structure.slice import Slice


def cut_depth(
    model: PreTrainedModel,
    pieces: Sequence[Piece],
    *,
    device: torch.device | str | None = None,
    on_block: Callable[[SliceRow, list[Slice]], None] | None = None,
) -> tuple[tuple[SliceRow, ...], tuple[RemovalRow, ...]]:
    """Remove these pieces from `model`, in place: a row for every block that is left, and one for every piece.

    `device`, `on_block`: as of `slice_model`. Raises ValueError as `slice_blocks`.
    """
    whole = {piece.block for piece in pieces if piece.kind == BLOCKS}
    dense = [of_block for of_block in units_of(model) if of_block.block not in whole]
    slice_depth(model, pieces)
    left = slice_model(model, {}, None, repair=False, device=device, on_block=on_block)
    rows = [_with_before(row, of_block, pieces) for row, of_block in zip(left, dense, strict=True)]
    removals = [
        RemovalRow(block=piece.block, kind=piece.kind, parameters=piece.parameters, score=piece.score)
        for piece in pieces
    ]
    return tuple(rows), tuple(removals)


def _with_before(row: SliceRow, dense: BlockUnits, pieces: Sequence[Piece]) -> SliceRow:
    """The row of a block, with what it had before these pieces of it went."""
    heads, channels = dense.head_groups, dense.channels
    gone = sum(piece.parameters for piece in pieces if piece.block == dense.block)
    return replace(
        row,
        head_groups_before=heads.count if heads else None,
        query_heads_before=heads.count * heads.columns_each // min(heads.rows_each.values()) if heads else None,
        channels_before=channels.count if channels else None,
        parameters_before=row.parameters + gone,
    )
