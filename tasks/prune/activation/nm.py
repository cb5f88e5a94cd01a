"""N:M by magnitude: of every m consecutive inputs of a token the n largest."""

from dataclasses import dataclass

from tasks.prune.activation.selection import ScoreSelection
from tasks.prune.weight.pattern import NM, Pattern


@dataclass(frozen=True, kw_only=True)
class Magnitude(ScoreSelection):
    """|x_j|, within each group of m."""

    def check(self, pattern: Pattern) -> None:
        if not isinstance(pattern, NM):
            raise ValueError(f"pattern: {pattern} given, nm keeps n of m such as 8:16; use topk for a share")
