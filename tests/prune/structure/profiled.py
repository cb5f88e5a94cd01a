"""Four profiles of any tiny model, for the tests of profiles."""

import torch

from tasks.prune.structure.profiles import Profile, Profiles
from tests.cases import BLOCKS, FAMILIES, batches

CUTTABLE = [family for family in FAMILIES if family != "gpt_neox"]
IDS = batches((2, 20))[0]


def indices(*kept):
    return torch.tensor(kept, dtype=torch.int64)


def cuts():
    return [
        Profile(name="heads", kept={0: {"head_groups": indices(1)}, 2: {"head_groups": indices(0)}}),
        Profile(name="ffn", kept={block: {"channels": torch.arange(block, 40)} for block in range(BLOCKS)}),
        Profile(name="depth", blocks=(1,)),
        Profile(
            name="all",
            kept={0: {"channels": torch.arange(9)}, 2: {"head_groups": indices(1)}},
            blocks=(1,),
            attention=(0,),
            ffn=(2,),
        ),
    ]


def built(model):
    profiles = Profiles(model)
    for profile in cuts():
        profiles.add(profile)
    return profiles
