"""The methods, updates, ways to low rank, patterns, and those of activation sparsity by name.

Nothing but this file knows them all, so that an edit of one method leaves the caches of the others valid.
"""

from tasks.prune.activation.amber import Amber
from tasks.prune.activation.clact import CLACT
from tasks.prune.activation.dpts import DynamicShift
from tasks.prune.activation.lpts import LearnedBias
from tasks.prune.activation.ls import LearnedScale
from tasks.prune.activation.mitigation import Mitigation
from tasks.prune.activation.nm import Magnitude as LargestOfM
from tasks.prune.activation.rsparse import LowRankRest
from tasks.prune.activation.scaling import Scaling
from tasks.prune.activation.selection import Selection
from tasks.prune.activation.spts import StaticShift
from tasks.prune.activation.threshold import Threshold
from tasks.prune.activation.topk import TopK
from tasks.prune.activation.var import Variance
from tasks.prune.activation.weight_variance import WeightVariance
from tasks.prune.allocators import ALLOCATIONS
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
SELECTIONS: dict[str, type[Selection]] = {
    "topk": TopK,
    "nm": LargestOfM,
    "threshold": Threshold,
    "clact": CLACT,
    "amber": Amber,
    "weight_variance": WeightVariance,
}
MITIGATIONS: dict[str, type[Mitigation]] = {
    "var": Variance,
    "dpts": DynamicShift,
    "spts": StaticShift,
    "lpts": LearnedBias,
    "ls": LearnedScale,
    "scaling": Scaling,
    "rsparse": LowRankRest,
}

__all__ = ["ALLOCATIONS", "DECOMPOSERS", "MITIGATIONS", "PATTERNS", "PRUNERS", "SELECTIONS", "UPDATES"]
