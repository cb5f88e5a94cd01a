"""The importances of units by name.

Nothing but this file knows them all, so that an edit of one method leaves the caches of the others valid.
"""

from tasks.calibrate.importance.activation import Activation
from tasks.calibrate.importance.fisher import Fisher
from tasks.calibrate.importance.flap import FLAP
from tasks.calibrate.importance.importance import Importance
from tasks.calibrate.importance.influence import Influence
from tasks.calibrate.importance.leave_one_out import LeaveOneOut
from tasks.calibrate.importance.taylor import Taylor
from tasks.calibrate.importance.wanda_sp import WandaSp
from tasks.calibrate.importance.weight_norm import WeightNorm

IMPORTANCES: dict[str, type[Importance]] = {
    "weight_norm": WeightNorm,
    "activation": Activation,
    "wanda_sp": WandaSp,
    "flap": FLAP,
    "taylor": Taylor,
    "fisher": Fisher,
    "influence": Influence,
    "leave_one_out": LeaveOneOut,
}

__all__ = ["IMPORTANCES"]
