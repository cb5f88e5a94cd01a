"""Rows of the tables that tell how a model was cut, beside `SliceRow` of tasks.handles."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RemovalRow:
    """removals: one row per block, attention or FFN that was removed whole per run."""

    block: int  # its number before
    kind: str  # blocks | attention | ffn; in older rows unknown, and of blocks
    parameters: int  # that went with it
    score: float  # the lowest of all went


@dataclass(frozen=True, kw_only=True)
class RepairRow:
    """repairs: one row per share of the repair that was measured per run."""

    share: float  # 0 is the plain cut, 1 the whole repair
    loss: float  # nats per token on windows to which nothing was fitted
    chosen: bool  # whether it is what the model got


@dataclass(frozen=True, kw_only=True)
class SplitRow:
    """splits: one row per way to divide the budget between heads and channels per run that measured several."""

    split: int  # 0 the one by size, then by how many heads go
    kind: str  # head_groups | query_heads
    heads_removed: float  # from a block, on average
    channels_removed: float  # share of the channels of all blocks, 0 to 1
    parameters: int  # of the model that is left
    loss: float  # nats per token, with what would go masked
    repaired_loss: float | None  # cut and repaired on a few windows; of the lowest two, where a repair was to follow
    chosen: bool  # whether the model was cut so


@dataclass(frozen=True, kw_only=True)
class CutStageRow:
    """cut_stages: one row per stage of cutting and then training per run that has several."""

    stage: int  # from 1
    parameters: int  # of the whole model, once it is cut
    parameters_before: int  # of the whole model, before this stage
    target: int  # what was to be left; the rest is less than the largest unit
    calibration_loss: float  # nats per token of the cut model, on calibration windows to which nothing was fitted
    steps: int  # of the training that is interrupted by the cuts
    tokens: int  # read in them
    share: float  # of the tokens of all stages
    rate_from: float  # the learning rate of the first of the steps
    rate_to: float  # and of the last
    first_loss: float  # nats per token learned: the mean of the first tenth of the steps
    last_loss: float  # and of the last tenth
    seconds: float  # of all that the stage computed; next to none where it was cached
