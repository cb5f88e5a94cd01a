"""The queries of a model's attention as they are multiplied with the keys: behind norms and rotation, in any family.

They pass through the one table of attention functions that all families of transformers look into; there is no module
behind the rotation that a hook could be on.

Axes: B prompts, Q query heads, T the last tokens, D width of a head.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


@contextmanager
def watching_queries(model: PreTrainedModel, last: int, see: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Within, `see(slot, query_BQTD)` for each block that attends, between its update of the cache and its attention.

    `slot`: of the cache, by which the block knows itself. The queries are those of the `last` tokens, or of all where
    there are fewer, scaled so that the attention's logits are q·k / sqrt(D). Other models are not seen; watches may lie
    within each other, as one thread's do. Raises ValueError for a family that attends in another way.
    """
    attentions = {module for module in model.modules() if "layer_idx" in vars(module)}
    for family in {type(module) for module in attentions}:
        if not hasattr(sys.modules[family.__module__], "ALL_ATTENTION_FUNCTIONS"):
            raise ValueError(f"budget: queries of {family.__name__} cannot be seen; valid is a budget without queries")
    kind = model.config._attn_implementation
    before = ALL_ATTENTION_FUNCTIONS.get(kind)

    def attend(module: Any, query_BQTD: Tensor, *rest: Any, **how: Any) -> Any:
        if module in attentions:
            scale = (how.get("scaling") or query_BQTD.shape[3] ** -0.5) * query_BQTD.shape[3] ** 0.5
            see(module.layer_idx, query_BQTD[:, :, -last:] * scale)
        # "eager" is not in the table, but in the family's own file
        forward = before or sys.modules[type(module).__module__].eager_attention_forward
        return forward(module, query_BQTD, *rest, **how)

    ALL_ATTENTION_FUNCTIONS[kind] = attend
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS[kind]
        if before is not None and ALL_ATTENTION_FUNCTIONS.get(kind) is not before:
            ALL_ATTENTION_FUNCTIONS[kind] = before  # another watch is around this one
