"""The row of a profile of a model: what it leaves, what it holds in memory, how fast one switches to it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ProfileRow:
    """profiles: one row per profile of a model per run, "none" being the model itself."""

    profile: str  # its name, as Profiles.switch takes it; the subject of its rows in evaluations and speeds
    blocks: int  # that are left
    head_groups: int | None  # in all blocks together; None where no block has any
    channels: int | None  # in all blocks together; None where no block has any
    parameters: int  # in force
    own_bytes: int  # of memory that it holds beyond the model
    shared_bytes: int  # of the model's own memory that it uses too
    switches: int  # to it, from any other at random, that were timed
    switch_median_ms: float  # of these switches
    switch_worst_ms: float  # of these switches
