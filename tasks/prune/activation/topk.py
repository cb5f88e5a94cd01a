"""Per-token top-k: the inputs of the largest magnitude, a fixed share of them."""

from dataclasses import dataclass

from tasks.prune.activation.selection import ScoreSelection
from tasks.prune.weight.pattern import Pattern, Unstructured


@dataclass(frozen=True, kw_only=True)
class TopK(ScoreSelection):
    """|x_j|, over all inputs of a token."""

    def check(self, pattern: Pattern) -> None:
        super().check(pattern)
        if not isinstance(pattern, Unstructured):
            raise ValueError(f"pattern: {pattern} given, topk keeps a share such as 50%; use nm for n:m")
