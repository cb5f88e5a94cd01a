"""The padded form: every block filled up with zeros to the widest, so that the stock class can state one width.

What a unit of zeros hands to its reader meets columns of zeros there: exact, as norms over a head, softmax and
activations keep it finite. Query heads are filled up inside their groups, since those of a KV head stand together. An
attention or FFN that was removed is one of zero weights and biases.
"""

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from tasks.model.cost import Widths
from tasks.model.units import Units
from tasks.prune.structure.outline import Outline, Plan, build, check_shapes, width_settings


def padded(outline: Outline) -> Plan:
    """At the fewest heads that hold every block and that the class can have; those before the cut at most.

    Raises ValueError where there are none.
    """
    model, refusals = outline.model, []
    state = model.state_dict()
    on_meta = {name: tensor.to("meta") for name, tensor in state.items()}
    for widths in _candidates(outline):
        settings = model.config.to_dict() | width_settings(model.config, widths, outline.head_dim)
        try:
            target = build(type(model), type(model.config), settings)
            check_shapes(target, pad(on_meta, outline, widths))
        except ValueError as error:
            refusals.append(error)
        else:
            return Plan(target=target, tensors=partial(pad, state, outline, widths))
    raise refusals[-1]


def pad(state: Mapping[str, Tensor], outline: Outline, widths: Widths) -> dict[str, Tensor]:
    """The tensors of the cut model, `state`, with every block as wide as `widths`; what is not padded is shared."""
    wide = dict(state)
    for kind in ("head_groups", "channels"):
        having = [block for block in outline.units if kind in block.kinds]
        lacking = [block.block for block in outline.units if kind not in block.kinds]
        if not having:
            continue
        most = max(having, key=lambda block: block.of(kind).columns_each)
        sizes = _sizes(most.of(kind), widths)
        for block in having:
            _fill_up(wide, f"{outline.layers}.{block.block}", block.of(kind), sizes)
        for index in lacking:
            _add_zeros(wide, f"{outline.layers}.{most.block}", f"{outline.layers}.{index}", most.of(kind))
    return wide


def _candidates(outline: Outline) -> list[Widths]:
    """From the heads of the widest block to those that the configuration states, the fewest first."""
    config = outline.model.config
    channels = max(widths.channels for widths in outline.widths)
    groups = max(widths.kv_heads for widths in outline.widths)
    if not groups:
        return [Widths(query_heads=0, kv_heads=0, channels=channels)]
    ratio = max(widths.query_heads // widths.kv_heads for widths in outline.widths if widths.kv_heads)
    most_groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    most_ratio = config.num_attention_heads // most_groups
    every = [
        Widths(query_heads=kv_heads * each, kv_heads=kv_heads, channels=channels)
        for kv_heads in range(groups, max(groups, most_groups) + 1)
        for each in range(ratio, max(ratio, most_ratio) + 1)
    ]
    return sorted(every, key=lambda widths: (widths.query_heads, widths.kv_heads))


def _sizes(units: Units, widths: Widths) -> dict[str, tuple[int, int]]:
    """For each linear, how many units it is to have, and how many rows (the reader: columns) each of them."""
    every = [*units.rows_each, units.reader]
    if units.kind == "channels":
        return dict.fromkeys(every, (widths.channels, 1))
    head_dim = min(units.rows_each.values())
    query = max(units.rows_each, key=lambda name: units.rows_each[name])
    ratio = widths.query_heads // widths.kv_heads
    return {name: (widths.kv_heads, head_dim * (ratio if name in (query, units.reader) else 1)) for name in every}


def _fill_up(state: dict[str, Tensor], block: str, units: Units, sizes: Mapping[str, tuple[int, int]]) -> None:
    for linear in units.rows_each:
        for name in (f"{block}.{linear}.weight", f"{block}.{linear}.bias"):
            if name in state:
                state[name] = _filled_up(state[name], 0, units.count, sizes[linear])
    name = f"{block}.{units.reader}.weight"
    state[name] = _filled_up(state[name], 1, units.count, sizes[units.reader])


def _filled_up(tensor: Tensor, dim: int, count: int, size: tuple[int, int]) -> Tensor:
    """`count` units along `dim` become size[0] units of size[1], with zeros at the end of each, and after the last."""
    parts = tensor.unflatten(dim, (count, -1))
    if parts.shape[dim : dim + 2] == size:
        return tensor
    wide = tensor.new_zeros(*tensor.shape[:dim], *size, *tensor.shape[dim + 1 :])
    wide.narrow(dim, 0, count).narrow(dim + 1, 0, parts.shape[dim + 1]).copy_(parts)
    return wide.flatten(dim, dim + 1)


def _add_zeros(state: dict[str, Tensor], like: str, block: str, units: Units) -> None:
    """Give `block` the tensors that the block `like` has for these units, its head norms included, as zeros."""
    for part in [units.module] if units.module else [*units.rows_each, units.reader]:
        for name in [name for name in state if name.startswith(f"{like}.{part}.")]:
            state[block + name.removeprefix(like)] = state[name].new_zeros(state[name].shape)
