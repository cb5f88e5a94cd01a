"""Rows of the tables that tell how a budget was divided among the parts of a model."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LevelRow:
    """levels: one row per part and number of rungs per run that measured each part alone."""

    block: int  # its number, from 0
    kind: str  # attention | ffn
    rungs: int  # that are gone; 0 is the dense model
    share: float  # of the part's units or weights
    loss: float  # nats per token, on the windows of a search
    rise: float  # above the dense model's


@dataclass(frozen=True, kw_only=True)
class SearchRow:
    """searches: one row per move of an allocator per run that searched."""

    move: int  # from 0
    allocator: str  # who moved
    step: int  # of that allocator, from 0
    levels: str  # that were tried: the rungs that go of each part, in the order of `allocations`
    loss: float  # theirs, nats per token on the windows of the search
    best: float  # of the best so far
    tokens: int  # looked at so far
    reward: float | None  # that its policy was given; of one that has none, empty
    entropy: float | None  # nats, of the policy
    accepted: bool | None  # of an allocator that may refuse a move
    donor: str | None = None  # of a move between two parts, who lost rungs: 3.ffn
    receiver: str | None = None  # and who got some back


@dataclass(frozen=True, kw_only=True)
class AllocationRow:
    """allocations: one row per part per run that searched."""

    block: int  # its number, from 0
    kind: str  # attention | ffn
    rungs: int  # that go
    most: int  # that could
    share: float  # of the part's units or weights that goes
    saved_parameters: float  # of what all blocks have, the share that goes with it
    saved_flops: float  # of a prompt as long as the context
    saved_bytes: float  # of the weights
    saved_kv: float  # of the cache


@dataclass(frozen=True, kw_only=True)
class CandidateRow:
    """candidates: one row per allocator that another one chose from, per run."""

    name: str  # of the allocator
    tokens: int  # looked at
    held_out: float  # nats per token
    low: float  # 95 % interval of the difference to the loss of a uniform allocation, above 0 where it is worse
    high: float  # its upper end
    chosen: bool  # whether its allocation is the one that was taken


@dataclass(frozen=True, kw_only=True)
class AllocatorRow:
    """allocators: one row per run that searched; losses are nats per token before repair, update and recovery."""

    allocator: str  # its name
    tokens: int  # it looked at
    limit: int  # and could have
    windows: int  # of a look
    held_out_windows: int  # of the look that judges
    forwards: int  # looks, held out or not, that took the model
    hits: int  # that were known from before
    seconds: float  # of the whole search
    cached: bool | None = None  # found finished: this run took none of the looks and of the seconds
    dense_loss: float  # on the windows held out
    search_loss: float  # of what it found, on the windows it looked at
    held_out_loss: float  # of what it found, on the windows held out
    uniform_held_out_loss: float  # of the same share of all parts
    why: str | None  # in words, where one of several was chosen
