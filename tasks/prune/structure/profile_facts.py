"""What a profile leaves of its model, and what it holds in memory: counted while it is in force."""

from dataclasses import dataclass

from tasks.model.anatomy import find_blocks
from tasks.model.units import units_of
from tasks.prune.structure.profiles import Profiles


@dataclass(frozen=True, kw_only=True)
class ProfileFacts:
    """Of one profile, "none" being the model itself. None for a kind of unit that no block has."""

    name: str
    blocks: int
    head_groups: int | None  # in all blocks together
    channels: int | None
    parameters: int
    own_bytes: int  # of memory that it holds beyond the model
    shared_bytes: int  # of the model's own memory that it uses too


def facts_of(profiles: Profiles) -> tuple[ProfileFacts, ...]:
    """Of "none", then of every profile. One forward of a few tokens each."""
    return tuple(_facts(profiles, name) for name in profiles.names)


def _facts(profiles: Profiles, name: str) -> ProfileFacts:
    with profiles.using(name) as model:
        every, left = units_of(model), len(find_blocks(model)[1])
        head_groups = [of_block.head_groups.count for of_block in every if of_block.head_groups is not None]
        channels = [of_block.channels.count for of_block in every if of_block.channels is not None]
        return ProfileFacts(
            name=name,
            blocks=left,
            head_groups=sum(head_groups) if head_groups else None,
            channels=sum(channels) if channels else None,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            own_bytes=profiles.own_bytes(name),
            shared_bytes=profiles.shared_bytes(name),
        )
