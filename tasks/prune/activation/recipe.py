"""How the inputs of a model's linears are made sparse: what is chosen, how much, where, and what makes up for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import get_args

from torch import nn

from tasks.model.anatomy import Anatomy
from tasks.model.modules import ALL, check_modules, is_meant
from tasks.prune.activation.mitigation import Mitigation, OnInput
from tasks.prune.activation.scaling import Scaling
from tasks.prune.activation.selection import Selection
from tasks.prune.activation.sparse_input import Prefill
from tasks.prune.activation.threshold import Threshold
from tasks.prune.weight.pattern import Pattern


@dataclass(frozen=True, kw_only=True)
class ActivationRecipe:
    """`selection` chooses by `pattern` the inputs that are read, `mitigations` make up for the others.

    `modules`: the linears, by the last part of their names (`down_proj`) or by patterns for names in a block
    (`mlp.*`). `prefill`: "dense" reads prompts (more than one token at once) whole. Contradictions raise ValueError.
    """

    selection: Selection
    pattern: Pattern
    mitigations: tuple[Mitigation, ...] = ()
    modules: tuple[str, ...] = ALL
    prefill: Prefill = "sparse"

    def __post_init__(self) -> None:
        self.selection.check(self.pattern)
        check_modules(self.modules)
        if self.prefill not in get_args(Prefill):
            raise ValueError(f"prefill: {self.prefill!r} given, valid is {' or '.join(get_args(Prefill))}")
        kinds = [type(each) for each in self.mitigations]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise ValueError(f"mitigation: {kind.__name__} given {kinds.count(kind)} times, valid is once")
        shifts = [type(each).__name__ for each in self.mitigations if _shifts(each)]
        if len(shifts) > 1:
            raise ValueError(f"mitigation: {' and '.join(shifts)} given, one alone can stand in for a dropped input")
        if Scaling in kinds and isinstance(self.selection, Threshold):
            raise ValueError("mitigation: a threshold is a quantile of unscaled inputs; leave scaling out, or use topk")

    @property
    def calibrates(self) -> bool:
        """Whether anything looks at the calibration tokens, training apart."""
        return self.selection.calibrates or any(each.calibrates for each in self.mitigations)

    @property
    def centres(self) -> bool:
        """Whether a threshold is compared with inputs from which something was subtracted."""
        return isinstance(self.selection, Threshold) and any(map(_shifts, self.mitigations))

    @property
    def learns(self) -> bool:
        return any(each.learns for each in self.mitigations)

    def groups(self, anatomy: Anatomy) -> list[list[dict[str, nn.Linear]]]:
        """Of each block the chosen linears, those that read one input together; in the order they run.

        Raises ValueError for a name that no block has, and for linears that the pattern or a mitigation does not fit.
        """
        check_modules(self.modules, (name for block in anatomy.shared_inputs for group in block for name in group))
        return [
            self._of_block(index, anatomy.linears(index), groups) for index, groups in enumerate(anatomy.shared_inputs)
        ]

    def _of_block(
        self, index: int, linears: Mapping[str, nn.Linear], groups: Sequence[Sequence[str]]
    ) -> list[dict[str, nn.Linear]]:
        chosen = [{name: linears[name] for name in group if is_meant(name, self.modules)} for group in groups]
        for group in chosen:
            self.check_pattern(self.pattern, index, group)
            for (name, linear), each in product(group.items(), self.mitigations):
                try:
                    each.check(linear.out_features, linear.in_features)
                except ValueError as why:
                    raise ValueError(f"mitigation: {why} (block {index}, {name})") from why
        return [group for group in chosen if group]

    def check_pattern(self, pattern: Pattern, index: int, group: Mapping[str, nn.Linear]) -> None:
        """Raises ValueError where a group of block `index` cannot keep `pattern`: its selection, or its width."""
        self.selection.check(pattern)
        for name, each in group.items():
            if not pattern.divides(each.in_features):
                raise ValueError(
                    f"pattern: {pattern} does not divide the {each.in_features} inputs of block {index}, {name}"
                )


def _shifts(mitigation: Mitigation) -> bool:
    return isinstance(mitigation, OnInput) and type(mitigation).shift is not OnInput.shift
