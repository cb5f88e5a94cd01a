"""The rungs of a cut: a head group of a block's attention, a step of channels of its FFN, those of low scores first."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.model.anatomy import find_blocks, linears_of
from tasks.model.mode import only_gradients_of
from tasks.model.units import KINDS, BlockUnits, Units, units_of
from tasks.prune.structure.budget import COSTS, measured
from tasks.prune.structure.choose import Scores, highest
from tasks.prune.structure.cut import Cut
from tasks.prune.structure.width import Kept, masked
from tasks.train_controller.allocators.features import Summary, summary_of
from tasks.train_controller.allocators.problem import Levels, Part, Problem
from tasks.train_controller.allocators.rungs import Lever, Rungs


@dataclass(frozen=True, kw_only=True)
class UnitRungs(Rungs):
    """A model, its units with their scores, and the kind of units that each part of the problem loses."""

    model: PreTrainedModel
    problem: Problem
    units: Sequence[BlockUnits]
    kinds: tuple[str, ...]
    steps: tuple[int, ...]  # units of a rung
    scores: Scores

    def kept(self, levels: Levels) -> Kept:
        """The units that stay, of the parts that lose some."""
        made: dict[int, dict[str, Tensor]] = {}
        for part, kind, count, rungs in zip(self.problem.parts, self.kinds, self.counts(levels), levels, strict=True):
            if rungs:
                made.setdefault(part.block, {})[kind] = highest(self.units[part.block], kind, self.scores, count)
        return made

    def share(self, place: int, rungs: int) -> float:
        part, kind, step = self.problem.parts[place], self.kinds[place], self.steps[place]
        return step * rungs / self.units[part.block].of(kind).count

    def applied(self, levels: Levels) -> AbstractContextManager[None]:
        return masked(self.model, self.kept(levels), self.units)

    @contextmanager
    def levers(self, levels: Levels) -> Iterator[list[list[Lever]]]:
        """A gate before each input of the readers, which hand on nothing of what has gone."""
        gates, blocks = [], find_blocks(self.model)[1]
        with only_gradients_of(self.model, ()), ExitStack() as hooks:
            for place, (part, kind, gone) in enumerate(zip(self.problem.parts, self.kinds, levels, strict=True)):
                reader = linears_of(blocks[part.block])[self.units[part.block].of(kind).reader]
                outlasts_I = self._outlasts(place).to(reader.weight.device)
                gate_I = (outlasts_I >= gone).to(reader.weight.dtype).requires_grad_()
                hooks.callback(reader.register_forward_pre_hook(partial(_through, gate_I)).remove)
                gates.append([Lever(value=gate_I, full=torch.ones_like(gate_I), outlasts=outlasts_I)])
            yield gates

    def _outlasts(self, place: int) -> Tensor:
        """By input of the reader, how many rungs of the part at this place its unit outlasts, (I,)."""
        part, kind, step = self.problem.parts[place], self.kinds[place], self.steps[place]
        units = self.units[part.block].of(kind)
        rungs_U = torch.zeros(units.count, dtype=torch.int64)
        for rungs in range(1, self.problem.rungs[place] + 1):
            rungs_U[highest(self.units[part.block], kind, self.scores, units.count - step * rungs)] += 1
        return rungs_U.repeat_interleave(units.columns_each)

    def counts(self, levels: Levels) -> list[int]:
        """How many units of each part stay."""
        own = zip(self.problem.parts, self.kinds, self.steps, levels, strict=True)
        return [self.units[part.block].of(kind).count - step * rungs for part, kind, step, rungs in own]

    def summaries(self) -> dict[Part, Summary]:
        """Of the scores of all units of each part."""
        own = zip(self.problem.parts, self.kinds, strict=True)
        return {part: summary_of(self.scores[part.block][kind]) for part, kind in own}


def unit_rungs(model: PreTrainedModel, scores: Scores, cut: Cut) -> UnitRungs:
    """The rungs of `model` for the budget, the cost, the kinds and the steps of `cut`. Raises as `unit_problem`."""
    problem, units = unit_problem(model, cut), units_of(model)
    own = [_of_part(units[part.block], part, cut) for part in problem.parts]
    kinds, steps = tuple(each.kind for each in own), tuple(_step(each, cut.round_to) for each in own)
    return UnitRungs(model=model, problem=problem, units=units, kinds=kinds, steps=steps, scores=scores)


def unit_problem(model: PreTrainedModel, cut: Cut) -> Problem:
    """What a search for such a cut decides. Parts that have nothing of its cost, or a single step, have no rungs.

    Raises ValueError for a cut in depth, for channels that `round_to` does not divide, and for a budget that no levels
    meet.
    """
    if cut.in_depth:
        kinds = " and ".join(cut.kinds)
        raise ValueError(f"allocator: whole {kinds} go or stay, which is no search; valid is uniform, or other units")
    meter, widths = measured(model, cut.cost)
    meters = {cost: replace(meter, cost=cost) for cost in COSTS}
    parts, rungs, peaks, saves = [], [], [], {cost: list[int]() for cost in COSTS}
    for of_block, has in zip(units_of(model), widths, strict=True):
        for units in (of_block.kinds[kind] for kind in KINDS if kind in cut.kinds and kind in of_block.kinds):
            if not meter.of_unit(units.kind, has) or (step := _step(units, cut.round_to)) == units.count:
                continue
            parts.append(Part(block=of_block.block, kind="ffn" if units.kind == "channels" else "attention"))
            rungs.append(units.count // step - 1)
            peaks.append((units.count * units.columns_each, step * units.columns_each))
            for cost, of_cost in saves.items():
                of_cost.append(step * meters[cost].of_unit(units.kind, has))
    if not parts:
        raise ValueError(f"units: {', '.join(cut.kinds)} given, of which no block has more than one step to lose")
    totals = {cost: sum(map(each.of_block, widths)) for cost, each in meters.items()}
    return Problem(
        parts=tuple(parts),
        rungs=tuple(rungs),
        saves={cost: tuple(of_cost) for cost, of_cost in saves.items()},
        totals=totals,
        peaks=tuple(peaks),
        cost=cut.cost,
        budget=round(cut.budget * totals[cut.cost]),
    )


def left_in_blocks(rungs: UnitRungs, levels: Levels, cut: Cut) -> tuple[tuple[int, ...], ...]:
    """How many units of each of the kinds of `cut` stay in each block, for `Cut.left`."""
    left = [
        {kind: of_block.kinds[kind].count for kind in cut.kinds if kind in of_block.kinds} for of_block in rungs.units
    ]
    for part, kind, count in zip(rungs.problem.parts, rungs.kinds, rungs.counts(levels), strict=True):
        left[part.block][kind] = count
    return tuple(tuple(of_block.get(kind, 0) for kind in cut.kinds) for of_block in left)


def _through(gate_I: Tensor, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0] * gate_I, *inputs[1:])


def _of_part(of_block: BlockUnits, part: Part, cut: Cut) -> Units:
    heads = "query_heads" if "query_heads" in cut.kinds else "head_groups"
    return of_block.of("channels" if part.kind == "ffn" else heads)


def _step(units: Units, round_to: int) -> int:
    """The units of a rung. Raises ValueError for channels that it does not divide: rungs are equal."""
    if units.kind != "channels":
        return units.parts  # one head group, or a query head of each group
    if units.count % round_to:
        near = [step for step in range(1, min(round_to, units.count) + 1) if units.count % step == 0]
        valid = ", ".join(map(str, near[-3:]))
        raise ValueError(f"round_to: {round_to} given, a search cuts {units.count} channels in equal steps: {valid}")
    return round_to
