"""The methods, updates, ways to low rank, patterns, KV budgets, and those of activation sparsity by name.

No stage imports this file, so that an edit of one method leaves the caches of the others valid. All of it is also
`from tasks.prune import PRUNERS`.
"""

from tasks.prune.activation.methods import MITIGATIONS, SELECTIONS
from tasks.prune.allocators import ALLOCATIONS
from tasks.prune.cache.methods import KV_BUDGETS
from tasks.prune.weight.clearcut import ClearCut
from tasks.prune.weight.decomposer import Decomposer
from tasks.prune.weight.lowrank import LowRank
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import NM, Pattern, Unstructured
from tasks.prune.weight.pruner import Pruner
from tasks.prune.weight.refit import Refit
from tasks.prune.weight.ria import RIA
from tasks.prune.weight.sparsegpt import SparseGPT
from tasks.prune.weight.svd import SVD, ActivationSVD
from tasks.prune.weight.sweep import Sweep
from tasks.prune.weight.update import Leave, Update
from tasks.prune.weight.wanda import Wanda

PRUNERS: dict[str, type[Pruner]] = {
    "magnitude": Magnitude,
    "wanda": Wanda,
    "ria": RIA,
    "clearcut": ClearCut,
    "sparsegpt": SparseGPT,
}
UPDATES: dict[str, type[Update]] = {"none": Leave, "sweep": Sweep, "refit": Refit}
DECOMPOSERS: dict[str, type[Decomposer]] = {"low_rank": LowRank, "svd": SVD, "activation_svd": ActivationSVD}
PATTERNS: dict[str, type[Pattern]] = {"unstructured": Unstructured, "nm": NM}

__all__ = ["ALLOCATIONS", "DECOMPOSERS", "KV_BUDGETS", "MITIGATIONS", "PATTERNS", "PRUNERS", "SELECTIONS", "UPDATES"]
