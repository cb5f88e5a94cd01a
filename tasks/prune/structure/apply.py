"""Cutting units out of a whole model, block by block, each repaired on what the already cut part produces.

In a block the readers come in the order they run: that of the attention is fitted to what the block hands it as long as
it is whole, then the attention is cut, and the reader of the FFN is fitted to what comes behind the attention that is
left. A forward that only shows what a reader gets ends there.

Axes: B windows of a batch, T tokens, D model width, I inputs of a reader, U units that stay.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.calibrate.observers import InputDrift, InputGram
from tasks.calibrate.walk import Walk, check_walk, lent
from tasks.handles import SliceRow
from tasks.model.anatomy import Anatomy, before_each, dissect
from tasks.model.mode import evaluating
from tasks.model.units import BlockUnits, units_in
from tasks.prune.structure.held_out import divided
from tasks.prune.structure.repair import Repair, Repaired
from tasks.prune.structure.rows import RepairRow
from tasks.prune.structure.settle import Reader, settle
from tasks.prune.structure.slice import Slice
from tasks.prune.structure.width import Kept, masked, slice_units

Chooser = Callable[[PreTrainedModel], Kept]


def slice_model(
    model: PreTrainedModel,
    kept: Kept | Chooser,
    batches: Sequence[Tensor] | None,
    *,
    repair: bool = True,
    drift: float = 0.5,
    device: torch.device | str | None = None,
    settled: bool = True,
    on_block: Callable[[SliceRow, list[Slice]], None] | None = None,
    on_settled: Callable[[list[RepairRow]], None] | None = None,
) -> list[SliceRow]:
    """Remove the units that are not in `kept` from `model`, in place, and repair their readers; a row for every block.

    `kept`: block -> kind -> the units that stay, or what finds them, given the model. Whole blocks, attentions and FFNs
    are removed before that (tasks.prune.structure.depth); what they left is the dense model here. `batches`: ids,
    (windows, tokens) each, of which every 16th, or the last, is held out; None for no repair and no errors in the rows.
    `drift`: β of the repair, 0 for none. `device`: where a block is while it is cut, None for where the model is.
    `settled`: at last the repair is kept as far as it lowers the model's loss on what was held out
    (tasks.prune.structure.settle), which `on_settled` is told of; False keeps it whatever it does.
    `on_block` is called after every block, with the slices that undo it in reverse order: no weight that was there
    before is changed. Biases stay as they are, and so do readers of which no input is cut.

    Raises ValueError, before anything is replaced, as `slice_units`, for batches that are missing, fewer than two with
    repair, or of other shapes, for a `drift` that is not 0 to 1, and for a model whose blocks cannot be walked.
    """
    method = Repair(drift=drift) if repair else None
    to_fit, held_out = divided(batches, repair)
    place, rows = torch.device(device or model.device), []
    modes = {name: module.training for name, module in model.named_modules()}
    with evaluating(model):
        anatomy = dissect(model)
        units = units_in(anatomy, model.config)
        chosen = kept(model) if callable(kept) else kept
        with masked(model, chosen, units):
            pass  # it raises where something cannot be cut
        if held_out:
            check_walk(model, anatomy, held_out[0])
        fit = Walk(model, anatomy, to_fit, place) if method else None
        held = Walk(model, anatomy, held_out, place) if held_out else None
        cutting = _Cutting(
            model=model,
            anatomy=anatomy,
            units=units,
            repair=method,
            fit=fit,
            fit_dense=fit.twin() if fit and drift else None,
            held=held,
            held_dense=held.twin() if held else None,
        )
        for index, block in enumerate(anatomy.blocks):
            with lent(block, place):
                row, slices = _slice_block(cutting, index, chosen.get(index, {}))
            rows.append(row)
            if on_block is not None:
                on_block(row, slices)
        if settled and cutting.readers:
            repairs = settle(model, cutting.readers, held_out, place)
            if on_settled is not None:
                on_settled(repairs)
    for name, module in model.named_modules():
        module.training = modes[name]  # of the new linears, too
    return rows


@dataclass(frozen=True, kw_only=True)
class _Cutting:
    """A model that is cut up to the block where its walks stand; the dense ones go through it with the cuts undone.

    `fit` walks with the batches that are fitted to, `held` with those held out; None where nobody looks.
    """

    model: PreTrainedModel
    anatomy: Anatomy
    units: Sequence[BlockUnits]
    repair: Repair | None
    fit: Walk | None
    fit_dense: Walk | None
    held: Walk | None
    held_dense: Walk | None
    readers: list[Reader] = field(default_factory=list)  # that were repaired, until the whole model is judged


@torch.no_grad()
def _slice_block(cutting: _Cutting, index: int, kept: Mapping[str, Tensor]) -> tuple[SliceRow, list[Slice]]:
    """All walks move on to the next block."""
    started, before, block = time.perf_counter(), _widths(cutting, index), cutting.anatomy.blocks[index]
    parameters = sum(parameter.numel() for parameter in block.parameters())
    held, dense = cutting.held, list(cutting.held_dense.step(index)) if cutting.held_dense else []
    with masked(cutting.model, {index: kept}, cutting.units):
        cut_error = _error((held.output(index, batch) for batch in range(len(dense))), dense) if held else None
    slices, repaired = _cut_and_repair(cutting, index, kept)
    error = _error(held.step(index), dense) if held else None
    if cutting.fit:
        _finish(cutting.fit, index)
    gains = {kind: each.gain for kind, each in repaired.items()}
    row = SliceRow(
        block=index,
        **_widths(cutting, index),
        **{f"{name}_before": width for name, width in before.items()},
        parameters=sum(parameter.numel() for parameter in block.parameters()),
        parameters_before=parameters,
        cut_error=cut_error,
        repaired_error=error if cutting.repair else None,
        attention_gain=gains.get("head_groups", gains.get("query_heads")),
        ffn_gain=gains.get("channels"),
        damp=max((each.damp for each in repaired.values()), default=None),
        seconds=time.perf_counter() - started,
    )
    return row, slices


def _cut_and_repair(
    cutting: _Cutting, index: int, kept: Mapping[str, Tensor]
) -> tuple[list[Slice], dict[str, Repaired]]:
    """The slices in the order they were made, and what became of the readers, by kind of unit."""
    of_block, order = cutting.units[index], list(cutting.anatomy.linears(index))
    slices: list[Slice] = []
    repaired: dict[str, Repaired] = {}
    for kind in sorted(kept, key=lambda kind: order.index(of_block.of(kind).reader)):
        units, kept_U = of_block.of(kind), kept[kind]
        if cutting.repair and len(kept_U) < units.count:
            reader = cutting.anatomy.linears(index)[units.reader]
            stat = _observe(cutting, index, reader, slices)
            columns_K = units.columns_of(kept_U)
            repaired[kind] = cutting.repair.repair(reader.weight, columns_K, stat)
            plain_OK = reader.weight.detach()[:, columns_K]
        slices.append(slice_units(cutting.model, {index: {kind: kept_U}}, cutting.units))
        if kind in repaired:
            smaller = cutting.anatomy.linears(index)[units.reader]
            smaller.weight.copy_(repaired[kind].weight_OK)
            cutting.readers.append((smaller, plain_OK))
    if cutting.fit_dense:
        with _undone(slices):
            _finish(cutting.fit_dense, index)
    return slices, repaired


def _observe(cutting: _Cutting, index: int, reader: nn.Linear, slices: Sequence[Slice]) -> InputGram:
    """What the reader gets in all batches to fit to: x of the model with these slices, d of the dense one."""
    assert cutting.repair is not None
    assert cutting.fit is not None
    stat = cutting.repair.observes(reader.in_features, reader.weight.device)
    for batch in range(len(cutting.fit.hidden)):
        x_BTI = _input(cutting.fit, index, batch, reader)
        if isinstance(stat, InputDrift) and cutting.fit_dense:
            with _undone(slices):
                stat.see_both(x_BTI, _input(cutting.fit_dense, index, batch, reader))
        else:
            stat.see(x_BTI)
    return stat


class _Seen(Exception):  # noqa: N818 - not an error
    """Raised inside a block's forward once the reader has its input: the rest of it would be for nothing."""


def _input(walk: Walk, index: int, batch: int, reader: nn.Linear) -> Tensor:
    """What `reader` gets when block `index` runs on the inputs of one batch."""
    inputs: list[Tensor] = []

    def see(_: str, x: Tensor) -> None:
        inputs.append(x)
        raise _Seen

    with before_each({"reader": reader}, see), suppress(_Seen):
        walk.output(index, batch)
    return inputs[0]


@contextmanager
def _undone(slices: Sequence[Slice]) -> Iterator[None]:
    """Within, the block is as it was before these slices, the last of which was made last."""
    for each in reversed(slices):
        each.restore()
    try:
        yield
    finally:
        for each in slices:
            each.apply()


def _finish(walk: Walk, index: int) -> None:
    """Move on to the next block."""
    for _ in walk.step(index):
        pass


def _widths(cutting: _Cutting, index: int) -> dict[str, int | None]:
    """What the linears of a block have now, whose units were those of `cutting`; None for what it never had."""
    linears, block = cutting.anatomy.linears(index), cutting.units[index]
    heads, channels = block.head_groups, block.channels
    head_dim = min(heads.rows_each.values()) if heads else 1
    narrowest = min(heads.rows_each, key=lambda name: linears[name].out_features) if heads else ""
    return {
        "head_groups": linears[narrowest].out_features // head_dim if heads else None,
        "query_heads": linears[heads.reader].in_features // head_dim if heads else None,
        "channels": linears[channels.reader].in_features if channels else None,
    }


def _error(outputs: Iterable[Tensor], dense: Sequence[Tensor]) -> float:
    """||output − dense||² / ||dense||² over all batches."""
    pairs = [(output.double(), expected.double()) for output, expected in zip(outputs, dense, strict=True)]
    distance = sum((output - expected).square().sum().item() for output, expected in pairs)
    return distance / sum(expected.square().sum().item() for _, expected in pairs)
