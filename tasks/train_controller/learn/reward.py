"""What an answer is worth: how much faster it came, less what its quality lost.

Axes: any, the same of all tensors.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Reward:
    """ratio − min(most, quality · max(0, rise − tolerance · floor)).

    `quality`: what a rise of the perplexity by 1 costs; 3 in CASRAP. `tolerance`: the share of the floor that is free:
    1 punishes only what the floor forbids, 0 every rise, as CASRAP does. `most`: a single answer cannot lose more, so
    that a few that are spoilt do not drown what the others teach.
    """

    quality: float = 3.0
    tolerance: float = 1.0
    most: float = 1.0

    def __post_init__(self) -> None:
        for field in ("quality", "tolerance", "most"):
            if not 0 <= (given := getattr(self, field)) < float("inf"):
                raise ValueError(f"{field}: {given} given, valid is 0 or more")

    def of(self, ratio: Tensor, rise: Tensor, floor: float) -> Tensor:
        """`ratio`: speed against "none"; `rise`: of the reference's perplexity, as a share; `floor`: the largest."""
        return ratio - (self.quality * (rise - self.tolerance * floor).clamp(min=0)).clamp(max=self.most)

    def once(self, ratio: float, rise: float, floor: float) -> float:
        """Of one answer."""
        both_2 = torch.tensor([ratio, rise], dtype=torch.float64)
        return self.of(both_2[0], both_2[1], floor).item()
