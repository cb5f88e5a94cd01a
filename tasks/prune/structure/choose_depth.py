"""What goes when a model is cut in depth: whole blocks, or the attentions of blocks, their FFNs, or either.

The lowest scores go first, as many as come nearest to a budget. Attentions and FFNs stand in one order where both may
go (He et al.: What Matters in Transformers? Not All Attention is Needed, arXiv:2406.15786, "joint layer drop").
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from torch import nn
from transformers import PreTrainedModel

from tasks.calibrate.importance.importance import BLOCKS
from tasks.model.anatomy import attention_of, find_blocks
from tasks.model.units import ATTENTION, FFN, PARTS, units_of
from tasks.prune.structure.budget import measured
from tasks.prune.structure.choose import Scores
from tasks.prune.structure.depth import slice_blocks
from tasks.prune.structure.slice import Slice

OF_BLOCKS = (BLOCKS,)
SHOWN = 5e-5  # what a share may be off when it is shown to four places: whatever is called valid is


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A block, or the part of it that is its `kind`: what it has of the cost, its size, and how much it matters."""

    block: int
    kind: str  # BLOCKS, or of tasks.model.units.PARTS
    cost: int
    parameters: int
    score: float


def of_depth(kinds: Sequence[str]) -> bool:
    """Whether `kinds` go whole or stay: blocks, or some of PARTS."""
    return tuple(kinds) == OF_BLOCKS or (bool(kinds) and {*kinds} <= {*PARTS})


def choose_depth(
    model: PreTrainedModel,
    scores: Scores,
    budget: float,
    *,
    kinds: Sequence[str] = OF_BLOCKS,
    cost: str = "parameters",
) -> list[Piece]:
    """The pieces that go, by block: those of the lowest scores, as many as come nearest to `budget` of all blocks.

    One goes at least and one stays, with attention where attentions can go. A part that has nothing of the cost stays.
    Raises ValueError for a part that no block has, for a budget below the smallest piece or beyond what can go; for
    another cost than parameters, and for parts of blocks, as `sizes_of` too.
    """
    pieces = _blocks(model, scores, cost) if tuple(kinds) == OF_BLOCKS else _parts(model, scores, kinds, cost)
    whole, stays = sum(costs_of(model, cost)), _staying(model, pieces)
    order = sorted((each for each in pieces if each is not stays), key=lambda piece: piece.score)
    shares = [gone / whole for gone in accumulate(piece.cost for piece in order)]  # with 1, 2, … pieces
    least, most = min(piece.cost for piece in pieces) / whole, shares[-1] if shares else 0.0
    if not least - SHOWN <= budget <= most + SHOWN:
        what = "whole blocks" if tuple(kinds) == OF_BLOCKS else " and ".join(kinds)
        valid = f"{least:.4f} to {most:.4f}" if shares else f"none, as there is one {kinds[0].removesuffix('s')}"
        raise ValueError(f"budget: {budget:g} given for {what}, valid is {valid}")
    count = min(range(len(shares)), key=lambda place: abs(shares[place] - budget)) + 1
    return sorted(order[:count], key=lambda piece: (piece.block, piece.kind))


def slice_depth(model: PreTrainedModel, pieces: Iterable[Piece]) -> Slice:
    """Remove these pieces from `model`, in place; the slice can undo it. Raises as `slice_blocks`."""
    gone: dict[str, list[int]] = {kind: [] for kind in (BLOCKS, *PARTS)}
    for piece in pieces:
        gone[piece.kind].append(piece.block)
    return slice_blocks(model, **gone)


def costs_of(model: PreTrainedModel, cost: str) -> list[int]:
    """Of each block. Parameters are counted, as they can be in families whose units are not known."""
    if cost == "parameters":
        return [_size(block) for block in find_blocks(model)[1]]
    meter, widths = measured(model, cost)
    return [meter.of_block(of_block) for of_block in widths]


def flops_of(model: PreTrainedModel) -> int | None:
    """Of all blocks together, for a prompt as long as the context; None in families whose units are not known."""
    try:
        return sum(costs_of(model, "flops"))
    except ValueError:
        return None


def _blocks(model: PreTrainedModel, scores: Scores, cost: str) -> list[Piece]:
    both = zip(find_blocks(model)[1], costs_of(model, cost), strict=True)
    return [
        Piece(block=index, kind=BLOCKS, cost=of_block, parameters=_size(block), score=scores[index][BLOCKS].item())
        for index, (block, of_block) in enumerate(both)
    ]


def _parts(model: PreTrainedModel, scores: Scores, kinds: Sequence[str], cost: str) -> list[Piece]:
    """In the order they run. What a part has of the cost is what the block costs less without its heads or channels."""
    (meter, widths), units = measured(model, cost), units_of(model)
    size = replace(meter, cost="parameters")
    for kind in kinds:
        if not any(kind in of_block.parts for of_block in units):
            units[0].of(kind)  # raises, saying what there is
    pieces = []
    for of_block, has in zip(units, widths, strict=True):
        for kind in (part for part in PARTS if part in kinds and part in of_block.parts):
            left = replace(has, query_heads=0, kv_heads=0) if kind == ATTENTION else replace(has, channels=0)
            pieces.append(
                Piece(
                    block=of_block.block,
                    kind=kind,
                    cost=meter.of_block(has) - meter.of_block(left),
                    parameters=size.of_block(has) - size.of_block(left),
                    score=scores[of_block.block][kind].item(),
                )
            )
    return [piece for piece in pieces if piece.cost]


def _staying(model: PreTrainedModel, pieces: Sequence[Piece]) -> Piece:
    """The highest score of those that have attention, or of all where only FFNs can go; of equal ones the last."""
    blocks = find_blocks(model)[1]
    attentive = [each for each in pieces if each.kind != FFN and attention_of(blocks[each.block])]
    return max(attentive or pieces, key=lambda piece: (piece.score, piece.block))


def _size(block: nn.Module) -> int:
    return sum(parameter.numel() for parameter in block.parameters())
