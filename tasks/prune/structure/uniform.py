"""The uniform form: all blocks have the same widths, which the configuration of the stock class states."""

from tasks.model.cost import Widths
from tasks.prune.structure.outline import Outline, Plan, build, check_shapes, width_settings


def uniform(outline: Outline) -> Plan:
    """Raises ValueError where blocks differ, or the class cannot have such widths."""
    first = outline.widths[0]
    for index, (widths, removed) in enumerate(zip(outline.widths, outline.removed, strict=True)):
        if removed:
            raise ValueError(f"block {index} has no {' and no '.join(removed)}")
        if widths != first:
            raise ValueError(f"block 0 has {_words(first)}, block {index} {_words(widths)}")
    model = outline.model
    settings = model.config.to_dict() | width_settings(model.config, first, outline.head_dim)
    target = build(type(model), type(model.config), settings)
    check_shapes(target, model.state_dict())
    return Plan(target=target, tensors=model.state_dict)


def _words(widths: Widths) -> str:
    return f"{widths.query_heads} query heads, {widths.kv_heads} KV heads and {widths.channels} channels"
