"""SparseGPT: prune column by column, and let the columns that follow make up for what was dropped.

Source: Frantar, Alistarh: SparseGPT, arXiv:2301.00774. `tasks.prune.weight.sweep` has its column sweep.
Axes: O outputs, I inputs of the linear, B inputs of a block.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tasks.calibrate.observers import InputGram
from tasks.prune.weight.pattern import Pattern
from tasks.prune.weight.pruner import Pruner, absolute
from tasks.prune.weight.sweep import check_sweep, comparison, sweep


@dataclass(frozen=True, kw_only=True)
class SparseGPT(Pruner):
    """Second-order pruning with H = G + `damp` · mean(diag G), in blocks of `block` inputs.

    A share (`50%`) is compared over all rows of a block, as in the paper, and `within` of the pattern plays no part;
    n:m is chosen when the sweep arrives at the group, on weights that are already updated.
    """

    damp: float = 0.01
    block: int = 128

    observes: ClassVar[type[InputGram]] = InputGram

    def __post_init__(self) -> None:
        check_sweep(self.damp, self.block)

    @property
    def damping(self) -> float:
        return self.damp

    def score(self, weight_OI: Tensor, stat: InputGram) -> Tensor:
        """|w| / sqrt(H⁻¹_jj), the root of what dropping this weight alone would cost: 0 where the input is dead."""
        root_II = stat.root_II(self.damp)
        identity_II = torch.eye(len(root_II), dtype=root_II.dtype, device=root_II.device)
        upper_II = torch.linalg.solve_triangular(root_II, identity_II, upper=True)
        return (absolute(weight_OI) / upper_II.norm(dim=0)).masked_fill_(stat.dead_I, 0)

    def surplus(self, pruned_OI: Tensor, pattern: Pattern) -> int:
        """Above the count of each block: a percentage rounds down there, and not once for each row or the matrix."""
        compared, _, block = comparison(pattern, self.block)
        return sum(compared.surplus(pruned_OB) for pruned_OB in pruned_OI.split(block, dim=1))

    def _prune(self, weight_OI: Tensor, stat: InputGram, pattern: Pattern) -> tuple[Tensor, Tensor]:
        return sweep(weight_OI, stat, pattern, self.damp, self.block)
