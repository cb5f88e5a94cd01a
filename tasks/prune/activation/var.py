"""VAR: what is kept of a token gets the variance of the whole token."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.prune.activation.mitigation import OnInput


@dataclass(frozen=True, kw_only=True)
class Variance(OnInput):
    """ν = √(Var x / Var x_kept) per token, both unbiased and over all inputs, those that were dropped being 0."""

    def stretch(self, x_TI: Tensor, kept_TI: Tensor) -> Tensor:
        before_T1, after_T1 = (each.float().var(dim=-1, keepdim=True) for each in (x_TI, kept_TI))
        ratio_T1 = torch.where(after_T1 > 0, before_T1 / after_T1.clamp(min=1e-30), 1)
        return ratio_T1.sqrt().to(x_TI.dtype)
