"""What a budget is a share of: the cost of a block, and what each of its units costs of that.

parameters  numbers in the block
flops       of a prompt as long as the context, for all of its tokens
bytes       of the weights; of one dtype, so that it is the same share as of the parameters
kv          bytes of the cache at that context: heads have some of it, channels none

The context is that of `CONTEXT` tokens, or the model's own where that is shorter. Of every cost each unit of a kind has
the same part, so a unit costs what one more of it would.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter

from transformers import PreTrainedModel

from tasks.model.cost import Cost, Frame, Widths, sizes_of
from tasks.model.load import context_of

CONTEXT = 2048  # tokens
COSTS: dict[str, Callable[[Cost], int]] = {
    "parameters": attrgetter("parameters"),
    "flops": attrgetter("prefill_flops"),
    "bytes": attrgetter("weight_bytes"),
    "kv": attrgetter("kv_bytes"),
}


def check_cost(cost: str) -> None:
    """Raises ValueError for a cost that is none of COSTS."""
    if cost not in COSTS:
        raise ValueError(f"cost: {cost} given, valid is {', '.join(COSTS)}")


@dataclass(frozen=True, kw_only=True)
class Meter:
    """Tells one of COSTS in a model of this frame, at a context of `tokens`."""

    frame: Frame
    cost: str
    tokens: int

    def of_block(self, widths: Widths) -> int:
        return COSTS[self.cost](self.frame.block_cost(widths, tokens=self.tokens))

    def of_unit(self, kind: str, widths: Widths) -> int:
        """Of a block of these widths, which has units of the kind."""
        groups = widths.kv_heads
        if kind == "channels":
            return self._added(widths, channels=widths.channels + 1)
        if kind == "query_heads":  # one more for each KV head
            return self._added(widths, query_heads=widths.query_heads + groups) // groups
        return self._added(widths, kv_heads=groups + 1, query_heads=widths.query_heads // groups * (groups + 1))

    def _added(self, widths: Widths, **more: int) -> int:
        return self.of_block(replace(widths, **more)) - self.of_block(widths)


def measured(model: PreTrainedModel, cost: str) -> tuple[Meter, list[Widths]]:
    """The meter of a model, and the widths of its blocks. Raises ValueError as `check_cost` and `sizes_of`."""
    check_cost(cost)
    frame, widths = sizes_of(model)
    return Meter(frame=frame, cost=cost, tokens=context_for(model)), widths


def context_for(model: PreTrainedModel) -> int:
    """The tokens of the context at which costs are counted."""
    return min(CONTEXT, context_of(model.config) or CONTEXT)
