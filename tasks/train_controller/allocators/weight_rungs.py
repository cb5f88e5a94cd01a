"""The rungs of zeros: a fixed share of the weights of a block's attention, or of its FFN, those of low scores first.

What goes with one rung goes with the next one, too. So all keeps of a linear are one number for each weight, how many
rungs it outlasts: a byte a weight, made once on the dense model, and no other copy of a weight than the dense one.

Axes: O outputs, I inputs of a linear, W all weights of a part.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.model.anatomy import find_blocks, linears_of
from tasks.model.mode import only_gradients_of
from tasks.prune.allocation import Allocation, shift
from tasks.prune.weight.budget import Linears, attention_linears
from tasks.prune.weight.pattern import NM, Pattern, Unstructured
from tasks.train_controller.allocators.problem import Levels, Part, Problem
from tasks.train_controller.allocators.rungs import Lever, Rungs

OF_A_PERCENTAGE = 20  # rungs would leave nothing: each is 5 %

Outlasted = Mapping[str, Tensor]  # by linear, `<block>.<name>`: the rungs that each weight outlasts, uint8 (O, I)


def whole_of(pattern: Pattern) -> int:
    """How many rungs would leave nothing: m of n:m. Raises ValueError for a pattern of another kind."""
    if isinstance(pattern, NM) and pattern.m > 1:
        return pattern.m
    if isinstance(pattern, Unstructured):
        return OF_A_PERCENTAGE
    raise ValueError(f"pattern: {pattern} given, a search needs n:m with an m of 2 or more, or a percentage")


def level_pattern(pattern: Pattern, rungs: int) -> Pattern:
    """What is laid over the linears of a part that has lost so many rungs."""
    if isinstance(pattern, NM):
        return NM(pattern.m - rungs, pattern.m)
    assert isinstance(pattern, Unstructured)
    return Unstructured(rungs / OF_A_PERCENTAGE, pattern.within)


def weight_problem(pattern: Pattern, blocks: Sequence[Linears], attention: Sequence[Collection[str]]) -> Problem:
    """What a search for zeros of `pattern` in these linears decides; `attention` names those of each block's attention.

    Costs are counted in as many parts of a number as there are rungs in a whole, so that a rung is an integer. Zeros
    save nothing of a cache. Raises ValueError as `whole_of`, and for a pattern that drops what no levels do.
    """
    whole, halves = whole_of(pattern), halves_of(blocks, attention)
    weights_P = tuple(sum(linear.weight.numel() for linear in linears.values()) for linears in halves.values())
    each = {"parameters": 1, "flops": 2, "bytes": _itemsize(blocks)}
    total = whole * sum(weights_P)
    budget, least, most = round(Fraction(pattern.sparsity) * total), min(weights_P), (whole - 1) * sum(weights_P)
    if not least <= budget <= most:
        valid = f"{least / total:.4g} to {most / total:.4g}"
        raise ValueError(f"pattern: {pattern} given, which drops {pattern.sparsity:.4g}; a search can divide {valid}")
    return Problem(
        parts=tuple(halves),
        rungs=(whole - 1,) * len(halves),
        saves={cost: tuple(number * weights for weights in weights_P) for cost, number in each.items()},
        totals={cost: number * total for cost, number in each.items()},
        cost="parameters",
        budget=budget,
    )


def halves_of(blocks: Sequence[Linears], attention: Sequence[Collection[str]]) -> dict[Part, Linears]:
    """The linears of each block's attention and of its FFN, where there are some."""
    halves: dict[Part, Linears] = {}
    for block, (linears, names) in enumerate(zip(blocks, attention, strict=True)):
        own = {name: linear for name, linear in linears.items() if name in names}
        rest = {name: linear for name, linear in linears.items() if name not in names}
        halves |= {Part(block=block, kind="attention"): own} if own else {}
        halves |= {Part(block=block, kind="ffn"): rest} if rest else {}
    return halves


def allocation_of(problem: Problem, pattern: Pattern, levels: Levels) -> Allocation:
    """The shares that parts lose by these levels, all moved by one constant so that they drop what `pattern` drops.

    Levels save up to one rung less than that. n:m goes by rungs alone, so nothing is moved.
    """
    whole, count = whole_of(pattern), 1 + max(part.block for part in problem.parts)
    dropped = [Fraction(rungs) for rungs in levels]
    if isinstance(pattern, Unstructured):
        bounds = [(0, most) for most in problem.rungs]
        dropped = shift(dropped, [whole] * len(levels), problem.budget, bounds, problem.unit_costs)
    shares = {part: float(rungs / whole) for part, rungs in zip(problem.parts, dropped, strict=True)}
    attention, ffn = (
        tuple(shares.get(Part(block=block, kind=kind), 0.0) for block in range(count)) for kind in ("attention", "ffn")
    )
    return Allocation(sparsities=attention, ffn=ffn)


@dataclass(frozen=True, kw_only=True)
class WeightRungs(Rungs):
    """A dense model, the weights of its linears once more, and what these outlast."""

    model: PreTrainedModel
    problem: Problem
    halves: Mapping[Part, Linears]
    dense: Mapping[str, Tensor]
    outlasted: Outlasted
    whole: int  # rungs would leave nothing

    def share(self, place: int, rungs: int) -> float:
        return rungs / self.whole

    @contextmanager
    def applied(self, levels: Levels) -> Iterator[None]:
        touched = [
            (rungs, f"{part.block}.{name}", linear)
            for part, rungs in zip(self.problem.parts, levels, strict=True)
            for name, linear in (self.halves[part].items() if rungs else ())
        ]
        try:
            for rungs, name, linear in touched:
                torch.mul(self.dense[name], self.outlasted[name] >= rungs, out=linear.weight.data)
            yield
        finally:
            for _, name, linear in touched:
                linear.weight.data.copy_(self.dense[name])

    @contextmanager
    def levers(self, levels: Levels) -> Iterator[list[list[Lever]]]:
        """The weights themselves."""
        levers_P = [
            [
                Lever(value=linear.weight, full=self.dense[key], outlasts=self.outlasted[key])
                for key, linear in ((f"{part.block}.{name}", linear) for name, linear in self.halves[part].items())
            ]
            for part in self.problem.parts
        ]
        weights = [lever.value for levers in levers_P for lever in levers]
        with self.applied(levels), only_gradients_of(self.model, weights):
            yield levers_P


def weight_rungs(model: PreTrainedModel, pattern: Pattern, outlasted: Outlasted) -> WeightRungs:
    """The rungs of `model`, which takes them where it is. Raises as `weight_problem`."""
    blocks = list(find_blocks(model)[1])
    linears, attention = [linears_of(block) for block in blocks], [attention_linears(block) for block in blocks]
    named = {f"{block}.{name}": each for block, own in enumerate(linears) for name, each in own.items()}
    return WeightRungs(
        model=model,
        problem=weight_problem(pattern, linears, attention),
        halves=halves_of(linears, attention),
        dense={name: linear.weight.detach().clone() for name, linear in named.items()},
        outlasted={name: outlasted[name].to(linear.weight.device) for name, linear in named.items()},
        whole=whole_of(pattern),
    )


def _itemsize(blocks: Sequence[Mapping[str, nn.Linear]]) -> int:
    return next(linear.weight.itemsize for linears in blocks for linear in linears.values())
