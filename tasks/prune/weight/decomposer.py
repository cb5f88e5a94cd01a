"""What may stand in for a weight: two factors, alone or beside a sparse part.

Axes: O outputs, I inputs of the linear.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from tasks.calibrate.observers import Observer
from tasks.prune.factors import SparseLowRank
from tasks.prune.weight.pattern import Pattern
from tasks.prune.weight.pruner import Pruner

MOST_ZEROS = 0.05  # a dense weight has hardly any


@dataclass(frozen=True, kw_only=True)
class Decomposer(ABC):
    """A way to split the weights of the linears that `linears` names; of all, where it names none.

    A name is one or more parts of a linear's name in its block: `q_proj`, `self_attn.q_proj`, or `self_attn` for all of
    them. `observes` is what it needs to know of the inputs, or None; `alone` says that there is no sparse part.
    """

    linears: tuple[str, ...] = ()

    observes: ClassVar[type[Observer] | None]
    alone: ClassVar[bool]

    @property
    def budgeted(self) -> bool:
        """Whether the pattern says how many bytes it may take."""
        return True

    @property
    def damping(self) -> float | None:
        """The share of mean(diag G) that it adds to the diagonal of a Gram G; None where it reads none."""
        return None

    def chooses(self, linear: str) -> bool:
        """Of a linear by its name in its block."""
        return not self.linears or any(_is_part(chosen, linear) for chosen in self.linears)

    def check_blocks(
        self, blocks: Sequence[Mapping[str, nn.Linear]], patterns: Sequence[Mapping[str, Pattern]]
    ) -> None:
        """ValueError for names that `blocks`, their linears by name, have not, and as `check` for each that is chosen.

        `patterns`: of the same linears.
        """
        names = list(dict.fromkeys(name for linears in blocks for name in linears))
        for chosen in self.linears:
            if not any(_is_part(chosen, name) for name in names):
                valid = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in names))
                raise ValueError(f"linears: {chosen!r} given, which the blocks have not; choose of {valid}")
        if self.linears and all(map(self.chooses, names)):
            raise ValueError(f"linears: {'+'.join(self.linears)} given, which are all; leave linears out")
        for index, (linears, of_block) in enumerate(zip(blocks, patterns, strict=True)):
            for name, linear in linears.items():
                if self.chooses(name):
                    try:
                        self.check(of_block[name], linear.out_features, linear.in_features)
                    except ValueError as cause:
                        raise ValueError(f"{cause} (block {index}, {name})") from cause

    @abstractmethod
    def check(self, pattern: Pattern, outputs: int, inputs: int) -> None:
        """ValueError where it cannot save bytes of a matrix of this shape, in weights of 16 bits or wider."""

    def decompose(self, weight_OI: Tensor, stat: Any, pruner: Pruner | None, pattern: Pattern) -> SparseLowRank:
        """`pruner` makes the sparse part; where `budgeted`, all of it takes no more bytes than `pattern` alone would.

        Raises ValueError for a weight that is pruned already, for factors would fill its zeros, for a `stat` that is
        not an instance of `observes`, and where no bytes can be saved.
        """
        zeros = 1 - int(weight_OI.count_nonzero()) / max(1, weight_OI.numel())
        if zeros > MOST_ZEROS:
            raise ValueError(f"weight: {zeros:.1%} of it is zero, and factors would fill that; give the dense model")
        if self.observes is not None and not isinstance(stat, self.observes):
            raise ValueError(f"stat: {type(stat).__name__} given, {type(self).__name__} needs {self.observes.__name__}")
        return self._decompose(weight_OI, stat, pruner, pattern)

    @abstractmethod
    def _decompose(self, weight_OI: Tensor, stat: Any, pruner: Pruner | None, pattern: Pattern) -> SparseLowRank:
        """`decompose` on checked arguments."""


def _is_part(chosen: str, linear: str) -> bool:
    return f".{chosen}." in f".{linear}."
