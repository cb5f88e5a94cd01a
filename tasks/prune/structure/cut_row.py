"""The row that holds what a cut was to remove against what it did, and says in which form the rest was written."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CutRow:
    """cuts: one row per run that cut a model once."""

    cost: str  # what the budget is a share of: parameters | flops | bytes | kv, of all blocks
    context: int  # tokens at which flops and kv are counted
    asked: float  # share of the cost that was to go
    removed: float  # share that went, of the model as it was cut: what a padded export fills up is gone here
    removed_flops: float | None = None  # share of the FLOPs of the blocks; unknown in older rows and some families
    form: str  # uniform | per_layer | padded
    passed_over: str | None  # why the forms that are taken before this one cannot express the cut
