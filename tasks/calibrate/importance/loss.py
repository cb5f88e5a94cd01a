"""The loss of a model on windows of text, for importances that ask what a unit does to it.

Axes: B windows of a batch, T tokens of a window, V vocabulary.
"""

from collections.abc import Iterable

from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.calibrate.importance.coupled import precise


def nll(model: PreTrainedModel, ids_BT: Tensor) -> Tensor:
    """Nats, summed over every token but the first of each window: a scalar, in float32 or better."""
    ids_BT = ids_BT.to(model.device)
    logits_BTV = precise(model(ids_BT, use_cache=False).logits[:, :-1])
    return nn.functional.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="sum")


def scored(batches: Iterable[Tensor]) -> int:
    """How many tokens `nll` sums over in all these batches."""
    return sum(ids_BT[:, 1:].numel() for ids_BT in batches)
