"""What an export has to state of a cut model, and how: the widths of each block, as its linears have them, the modules
that were removed, and the fields in which the configurations of transformers state widths.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from tasks.model.anatomy import find_blocks
from tasks.model.cost import Widths
from tasks.model.units import BlockUnits, head_dim_of, units_of
from tasks.prune.structure.depth import NoAttention, NoFFN

FFN_FIELDS = ("intermediate_size", "ffn_dim")


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A cut model. `layers`: the name of the list of its blocks, such as `model.layers`.

    `widths`: of each block; 0 for what it has not, and of a family without such units. `removed`: for each block, the
    modules that depth cuts replaced, by what they were, "attention" or "mlp".
    """

    model: PreTrainedModel
    layers: str
    units: tuple[BlockUnits, ...]
    widths: tuple[Widths, ...]
    removed: tuple[Mapping[str, tuple[str, ...]], ...]
    head_dim: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a form writes a cut model: `target` has the shapes but no values (device "meta"), `tensors` gives these.

    `files`: what stands beside the weights, by name.
    """

    target: PreTrainedModel
    tensors: Callable[[], Mapping[str, Tensor]]
    files: Mapping[str, str] = field(default_factory=dict)


def outline_of(model: PreTrainedModel) -> Outline:
    """The outline of `model`, cut or not; one forward of a few tokens.

    Raises ValueError as `units_of`, and for a class that is not one of transformers.
    """
    if not type(model).__module__.startswith("transformers.models."):
        raise ValueError(f"model: {type(model).__name__} given, valid is a class of transformers")
    layers, blocks = find_blocks(model)
    units, head_dim = units_of(model), head_dim_of(model.config)
    return Outline(
        model=model,
        layers=layers,
        units=tuple(units),
        widths=tuple(_widths(each, head_dim) for each in units),
        removed=tuple(_removed(block) for block in blocks),
        head_dim=head_dim,
    )


def width_settings(config: PreTrainedConfig, widths: Widths, head_dim: int) -> dict[str, int]:
    """The fields of such a configuration that state the widths of a block; none for what the block has not."""
    settings = {}
    if widths.kv_heads:
        settings["num_attention_heads"] = widths.query_heads
        if hasattr(config, "num_key_value_heads"):
            settings["num_key_value_heads"] = widths.kv_heads
        if hasattr(config, "head_dim") or widths.query_heads * head_dim != config.hidden_size:
            settings["head_dim"] = head_dim
    if widths.channels:
        settings |= {name: widths.channels for name in FFN_FIELDS if hasattr(config, name)}
    return settings


def build(
    model_class: type[PreTrainedModel], config_class: type[PreTrainedConfig], settings: Mapping[str, object]
) -> PreTrainedModel:
    """A model without values (device "meta"). Raises ValueError for settings that the classes refuse."""
    try:
        config = config_class.from_dict(dict(settings))
    except (StrictDataclassError, AttributeError) as error:  # a field that is computed (Falcon)
        raise ValueError(f"{config_class.__name__} refuses: {_last_line(error)}") from error
    with torch.device("meta"):
        return model_class(config)


def check_shapes(target: PreTrainedModel, state: Mapping[str, Tensor]) -> None:
    """Raises ValueError, naming a tensor, where `target` has not exactly those of `state`, in their shapes."""
    built = {name: tuple(tensor.shape) for name, tensor in target.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in sorted(built.keys() | given.keys()):
        if built.get(name) != given.get(name):
            has, is_now = built.get(name, "nothing"), given.get(name, "nothing")
            raise ValueError(f"{type(target).__name__} has {has} as {name}, where the cut model has {is_now}")


def _widths(block: BlockUnits, head_dim: int) -> Widths:
    groups, channels = block.head_groups, block.channels
    return Widths(
        query_heads=groups.count * groups.columns_each // head_dim if groups else 0,
        kv_heads=groups.count if groups else 0,
        channels=channels.count if channels else 0,
    )


def _removed(block: nn.Module) -> dict[str, tuple[str, ...]]:
    """Where an FFN's linears belong to the block itself, all but the last have become nn.Identity."""
    by_class = {
        kind: [name for name, module in block.named_modules() if isinstance(module, kind)]
        for kind in (NoAttention, NoFFN, nn.Identity)
    }
    removed = {}
    if by_class[NoAttention]:
        removed["attention"] = tuple(by_class[NoAttention])
    if by_class[NoFFN]:
        removed["mlp"] = tuple(by_class[nn.Identity] + by_class[NoFFN])
    return removed


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2].strip()
