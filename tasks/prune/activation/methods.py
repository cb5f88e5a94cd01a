"""The selections and mitigations by name. No stage imports this, so an edit of one leaves other caches valid."""

from tasks.prune.activation.amber import Amber
from tasks.prune.activation.clact import CLACT
from tasks.prune.activation.dpts import DynamicShift
from tasks.prune.activation.lpts import LearnedBias
from tasks.prune.activation.ls import LearnedScale
from tasks.prune.activation.mitigation import Mitigation
from tasks.prune.activation.nm import Magnitude
from tasks.prune.activation.rsparse import LowRankRest
from tasks.prune.activation.scaling import Scaling
from tasks.prune.activation.selection import Selection
from tasks.prune.activation.spts import StaticShift
from tasks.prune.activation.threshold import Threshold
from tasks.prune.activation.topk import TopK
from tasks.prune.activation.var import Variance
from tasks.prune.activation.weight_variance import WeightVariance

SELECTIONS: dict[str, type[Selection]] = {
    "topk": TopK,
    "nm": Magnitude,
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
METHODS: dict[str, type[Selection] | type[Mitigation]] = {**SELECTIONS, **MITIGATIONS}
