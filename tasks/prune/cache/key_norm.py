"""Key norm: keys of small l2 norm are those that get attention (Devoto et al. 2024, arXiv:2406.11430)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tasks.prune.cache.budget import KVBudget, best


@dataclass(frozen=True, kw_only=True)
class KeyNorm(KVBudget):
    """The positions whose keys have the smallest l2 norm, of each KV head its own."""

    name: ClassVar[str] = "key_norm"

    def choose(self, key_BHTD: Tensor, value_BHTD: Tensor, query_BQTD: Tensor | None) -> Tensor:
        dtype = torch.promote_types(key_BHTD.dtype, torch.float32)
        norm_BHT = torch.linalg.vector_norm(key_BHTD, dim=-1, dtype=dtype)
        return best(-norm_BHT, self.count(norm_BHT.shape[2]))
