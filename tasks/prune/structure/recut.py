"""A model that was cut before, made ready to be cut again.

Exported per layer, it is of a class that its folder brings, from which no form can be made. Cut anew in the classes of
the dense model, to the same widths and with its own weights, it is what the first cut had left in memory.
"""

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.model.load import load_model
from tasks.model.units import BlockUnits, units_of
from tasks.prune.structure.width import slice_units

KINDS = ("head_groups", "channels")


def load_cut(dense: Path, folder: Path) -> PreTrainedModel:
    """The model in `folder`, whose modeling file is run, as that in `dense` with head groups and channels cut out.

    Raises ValueError as `load_model`, and RuntimeError where it has lost anything else.
    """
    cut, model = load_model(folder, run_code=True), load_model(dense)
    slice_units(model, {block: _as_many(of_block) for block, of_block in enumerate(units_of(cut))})
    model.load_state_dict(cut.state_dict())
    return model


def _as_many(of_block: BlockUnits) -> dict[str, Tensor]:
    """Units to keep; which they are does not matter, as their weights are replaced."""
    return {kind: torch.arange(units.count) for kind, units in of_block.kinds.items() if kind in KINDS}
