"""Pruning the linears of one block, in either of two orders.

`observe_then_prune`, the published protocol: observe all linears of the unpruned block, then prune them. A forward ends
where the last linears have been seen, except for the first batch.

`prune_on_the_way`: one forward. Every batch is held just before the first of the linears that read one input, until all
batches have arrived there: these linears are pruned, and the forwards go on through them. So o, gate and down are
calibrated on the outputs of pruned linears, the second forward falls away, and one Gram exists at a time. The price is
memory: of every token, the residual and the input of the linears where it is held.

A second walk may follow the dense model. It goes through the block with the unpruned weights, batch by batch in front
of the first, so that an observer sees the same tokens of both.

Axes: B windows of a batch, T tokens, D model width, O outputs, I inputs of a linear.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn

from tasks.calibrate.hold import Held, forwards, hold
from tasks.calibrate.observers import InputDrift, Observer
from tasks.calibrate.walk import Walk
from tasks.model.anatomy import Anatomy, before_each
from tasks.prune.weight.fold import Folding
from tasks.prune.weight.linear import PrunedLinear, find_order, prune_linears
from tasks.prune.weight.pattern import Pattern
from tasks.prune.weight.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What is to be pruned, and how: block `index`, with a pattern for each of its linears that are."""

    anatomy: Anatomy
    index: int
    recipe: Recipe
    patterns: Mapping[str, Pattern]
    foldings: Mapping[str, Folding | None] = field(default_factory=dict)  # of each group, by its first linear

    @property
    def groups(self) -> list[dict[str, nn.Linear]]:
        """The linears that read one input together, in the order they run; such an input is observed once."""
        linears, groups = self.anatomy.linears(self.index), self.anatomy.shared_inputs[self.index]
        chosen = [{name: linears[name] for name in group if name in self.patterns} for group in groups]
        return [group for group in chosen if group]

    @property
    def firsts(self) -> dict[str, nn.Linear]:
        """The first linear of each group: where its input is observed."""
        return dict(next(iter(group.items())) for group in self.groups)

    def observer(self, first: nn.Linear) -> Observer:
        """A new one for the input of a group; only for a recipe that observes."""
        assert self.recipe.observes is not None
        return self.recipe.observes(first.in_features, first.weight.device)

    def prune(self, group: Mapping[str, nn.Linear], stat: Observer | None) -> list[PrunedLinear]:
        """Prune the linears of a group in place. `stat` has seen their input; None for a recipe that observes none."""
        order_I = None
        if self.recipe.permute:
            first = next(iter(group))
            order_I = find_order(self.index, group, self.recipe, self.patterns[first], stat, self.foldings[first])
        prefix = f"{self.anatomy.name}.{self.index}"
        return prune_linears(self.index, prefix, group, self.recipe, self.patterns, stat, order_I)


def prune_unobserved(cut: Cut) -> list[PrunedLinear]:
    """For a recipe that looks at the weights alone: no forward."""
    return [linear for group in cut.groups for linear in cut.prune(group, None)]


def observe_then_prune(cut: Cut, walk: Walk, dense: Walk | None) -> tuple[list[PrunedLinear], Tensor]:
    """The pruned linears, and the unpruned block's output on the first batch. `walk` stays, `dense` moves on."""
    stats = {name: cut.observer(linear) for name, linear in cut.firsts.items()} if cut.recipe.observes else {}
    output_BTD = _observe(cut, walk, dense, stats)
    pruned = [linear for group in cut.groups for linear in cut.prune(group, stats.pop(next(iter(group)), None))]
    return pruned, output_BTD


def prune_on_the_way(cut: Cut, walk: Walk, dense: Walk | None, *, finish: bool) -> list[PrunedLinear]:
    """The pruned linears. `dense` moves on to the next block; so does `walk`, if its forwards are to `finish`."""
    stat: Observer | None = None
    dense_x: Tensor | None = None  # of the batch whose turn it is, where it is held
    turn_of: Walk | None = walk
    unpruned: dict[nn.Linear, Tensor] = {}
    pruned: list[PrunedLinear] = []

    def see(_: str, x: Tensor) -> None:
        nonlocal dense_x
        if turn_of is dense:
            dense_x = x
        else:
            assert stat is not None
            _show(stat, x, dense_x)
        hold()

    def advances(of: Walk | None) -> list[Callable[[], Tensor]]:
        return [] if of is None else [partial(of.advance, cut.index, batch) for batch in range(len(of.hidden))]

    def resume_dense(forward: Held) -> None:
        nonlocal turn_of
        turn_of = dense
        with _with_weights(unpruned):
            forward.resume()
        turn_of = walk

    with (
        before_each(cut.firsts, see),
        forwards(advances(walk)) as pruned_forwards,
        forwards(advances(dense)) as dense_forwards,
    ):
        for group in cut.groups:
            stat = cut.observer(next(iter(group.values())))
            for batch, forward in enumerate(pruned_forwards):
                if dense is not None:
                    resume_dense(dense_forwards[batch])
                forward.resume()
            if dense is not None:
                unpruned |= {linear: linear.weight.data.clone() for linear in group.values()}
            pruned += cut.prune(group, stat)
        for forward in dense_forwards:
            resume_dense(forward)
        for forward in pruned_forwards if finish else ():
            forward.resume()
    return pruned


class _Seen(Exception):  # noqa: N818 - not an error
    """Raised inside a block's forward once every linear has been seen: the rest of it would be for nothing."""


def _observe(cut: Cut, walk: Walk, dense: Walk | None, stats: Mapping[str, Observer]) -> Tensor:
    """Show every observer the inputs of its linear in all batches; returns the block's output for the first batch.

    Where no observer waits, the other batches run through the dense model alone.
    """
    last = next(reversed(cut.firsts), None)  # a block that was cut may have no linear
    dense_x: dict[str, Tensor] = {}  # of one batch, at the first linear of each group
    outputs: list[Tensor] = []  # until there is one, a forward goes on to its end

    def see(first: str, x: Tensor) -> None:
        if first in stats:
            _show(stats[first], x, dense_x.pop(first, None))
        if first == last and outputs:
            raise _Seen

    for batch in range(len(walk.hidden)):
        if dense is not None:
            with before_each(cut.firsts, dense_x.__setitem__):
                dense.advance(cut.index, batch)
        if stats or not outputs:
            with before_each(cut.firsts, see), suppress(_Seen):
                outputs.append(walk.output(cut.index, batch))
    return outputs[0]


def _show(stat: Observer, x: Tensor, dense_x: Tensor | None) -> None:
    if isinstance(stat, InputDrift):
        assert dense_x is not None
        stat.see_both(x, dense_x)
    else:
        stat.see(x)


@contextmanager
def _with_weights(weights: Mapping[nn.Linear, Tensor]) -> Iterator[None]:
    """Within, these linears have these weights."""
    own = {linear: linear.weight.data for linear in weights}
    try:
        for linear, weight_OI in weights.items():
            linear.weight.data = weight_OI
        yield
    finally:
        for linear, weight_OI in own.items():
            linear.weight.data = weight_OI
