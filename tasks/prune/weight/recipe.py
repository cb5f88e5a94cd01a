"""How a model is pruned: what is chosen, what becomes of the rest, and what is done to a block once it is pruned."""

from dataclasses import dataclass
from typing import Literal, get_args

from tasks.calibrate.observers import InputDrift, Observer
from tasks.model.modules import ALL, check_modules
from tasks.prune.weight.decomposer import Decomposer
from tasks.prune.weight.pattern import NM, Pattern
from tasks.prune.weight.pruner import Pruner
from tasks.prune.weight.tuner import Tuner
from tasks.prune.weight.update import Update

Order = Literal["block", "group"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """`pruner` chooses the weights that stay, by `pattern`; `update` sets them (None: as the pruner leaves them).

    `permute`: order the inputs of each linear so that n:m keeps more. `low_rank`: two factors in the place of weights,
    or of a part of them, of all linears or of some; the others are pruned as without it, or with `pruner` None stay as
    they are. `reconstruct`: tune the block after it was pruned. `order`, of pruning within a block: see
    `tasks.prune.weight.block`. `modules`: the linears, by the last part of their names (`down_proj`) or by patterns for
    names in a block (`mlp.*`); the others keep all their weights. Contradictions raise ValueError in one line.
    """

    pruner: Pruner | None
    pattern: Pattern
    update: Update | None = None
    permute: bool = False
    low_rank: Decomposer | None = None
    reconstruct: Tuner | None = None
    order: Order = "block"
    modules: tuple[str, ...] = ALL

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise ValueError(f"order: {self.order!r} given, valid is {' or '.join(get_args(Order))}")
        check_modules(self.modules)
        self._check_observers()
        if self.order != "block" and self.observes is None:
            raise ValueError(f"order: {self.order!r} given, but {self} observes no inputs; leave it at 'block'")
        if self.permute and not isinstance(self.pattern, NM):
            raise ValueError(f"permute: pattern {self.pattern} given, inputs are ordered for n:m alone (such as 2:4)")
        if self.low_rank is not None and self.modules != ALL:
            raise ValueError(
                f"modules: {', '.join(self.modules)} given, but low rank names its own, linears=…; give one"
            )
        if self.low_rank is not None:
            for name in ("update", "permute", "reconstruct"):
                if getattr(self, name) and (name != "update" or not self.low_rank.linears):
                    alone = self.low_rank.alone and not self.low_rank.linears
                    why = "it leaves no weights to" if alone else "its factors cannot follow what would"
                    raise ValueError(f"low_rank: {why} {name}; give the one or the other")
        self._check_pruner()

    def _check_pruner(self) -> None:
        """Someone has to prune, where something is left to prune; and the pattern has to be of some use."""
        low_rank = self.low_rank
        if self.pruner is None:
            if low_rank is None or not low_rank.alone:
                raise ValueError(
                    "pruner: none given, valid beside low rank without a sparse part: svd or activation_svd"
                )
            if self.update is not None:
                raise ValueError("update: without a pruner no linear is pruned; give the one or leave the other out")
            if not low_rank.budgeted and self.pattern.sparsity:
                raise ValueError(
                    f"pattern: {self.pattern} given, but nothing is pruned and the rank is given; use 0% or no rank"
                )
        elif low_rank is not None and low_rank.alone and not low_rank.linears:
            raise ValueError(f"pruner: {self.pruner} given, but low rank takes all linears; choose some, or no pruner")

    def _check_observers(self) -> None:
        """An input has one observer, so that of one step has to know all that those of the others know."""
        for name, kind in self._wanted.items():
            if self.observes is not None and not issubclass(self.observes, kind):
                raise ValueError(
                    f"{name}: it observes {kind.__name__} and another step {self.observes.__name__}, but an input has "
                    "one observer; derive the one from the other"
                )

    @property
    def observes(self) -> type[Observer] | None:
        """The observer of each linear: one that knows enough for all that is done with it."""
        return max(self._wanted.values(), key=lambda kind: len(kind.__mro__), default=None)

    @property
    def _wanted(self) -> dict[str, type[Observer]]:
        """The observers that the steps need, by the name of the field."""
        steps = {"pruner": self.pruner, "update": self.update, "low_rank": self.low_rank}
        return {name: step.observes for name, step in steps.items() if step is not None and step.observes is not None}

    @property
    def walks(self) -> bool:
        """Whether the blocks have to be run at all."""
        return bool(self.walkers)

    @property
    def walkers(self) -> tuple[str, ...]:
        """The names of the fields for which the blocks have to be run."""
        return (*self._wanted, *(name for name in ("permute", "reconstruct") if getattr(self, name)))

    @property
    def follows_dense(self) -> bool:
        """Whether the hidden states of the dense model are needed beside those of the pruned one."""
        drifts = self.observes is not None and issubclass(self.observes, InputDrift)
        return self.reconstruct is not None or drifts

    def __str__(self) -> str:
        steps = [self.pruner, self.update, self.low_rank, "permuted" if self.permute else None, self.reconstruct]
        return " + ".join(str(step) for step in steps if step is not None)
