"""What a cut will leave, before it is made: the shapes of the model that will be exported, without its values."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.prune.structure.choose import Scores
from tasks.prune.structure.choose_depth import choose_depth, slice_depth
from tasks.prune.structure.cut import Cut, best_form, chosen_units
from tasks.prune.structure.export import FORMS, refusals_of
from tasks.prune.structure.outline import outline_of
from tasks.prune.structure.width import slice_units


def planned(
    model: PreTrainedModel,
    scores: Scores,
    cut: Cut,
    batches: Sequence[Tensor],
    device: torch.device | str | None = None,
) -> PreTrainedModel:
    """The model that `cut_model` will leave, in the form of `cut`, on the device "meta"; `model` stays whole.

    The form counts too: a padded model is everywhere as wide as its widest block. Arguments and errors are those of
    `cut_model` and `best_form`.
    """
    if cut.in_depth:
        made = slice_depth(model, choose_depth(model, scores, cut.budget, kinds=cut.kinds, cost=cut.cost))
    else:
        choice, _ = chosen_units(model, scores, cut, batches, device)
        made = slice_units(model, choice.kept)
    with made:
        return FORMS[best_form(refusals_of(model), cut.form)](outline_of(model)).target
