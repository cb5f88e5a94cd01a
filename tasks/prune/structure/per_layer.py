"""The per-layer form: `per_layer_config` in config.json says the widths of each block, and a small modeling file beside
the weights builds them. That file is tasks.prune.structure.modeling_per_layer, written for Llama, in the names of the
family. Loading it asks for `trust_remote_code=True` by name, as code of the folder is run.

Widths are said in the settings of the family. Where its class takes them from none, as the heads of OPT together are as
wide as the model, the shapes of the linears are said instead, and the numbers that modules keep of them.
"""

import re
from pathlib import Path
from types import ModuleType

from torch import nn
from transformers import PreTrainedModel

from tasks.model.anatomy import find_blocks, linears_of
from tasks.prune.structure.outline import Outline, Plan, build, check_shapes, width_settings

MODULE = "modeling_per_layer"

Settings = dict[str, object]


def per_layer(outline: Outline) -> Plan:
    """Raises ValueError for a family whose blocks do not take such widths in either way."""
    model = outline.model
    source, module = _source(outline), ModuleType(f"{MODULE}_{model.config.model_type}")
    exec(compile(source, f"{MODULE}.py", "exec"), vars(module))  # ours; as it is written, so it is tried
    config_name, model_name = (f"PerLayer{each.__name__}" for each in (type(model.config), type(model)))
    auto_map = {"AutoConfig": f"{MODULE}.{config_name}", "AutoModelForCausalLM": f"{MODULE}.{model_name}"}
    own = {"model_type": f"per_layer_{model.config.model_type}", "auto_map": auto_map}

    def built(settings: Settings) -> PreTrainedModel:
        stated = model.config.to_dict() | own | settings
        return build(getattr(module, model_name), getattr(module, config_name), stated)

    try:
        target = built(_in_settings(outline))
        check_shapes(target, model.state_dict())
    except ValueError as refusal:
        try:
            target = built(_in_shapes(outline, built(_all_there_is(outline))))
            check_shapes(target, model.state_dict())
        except ValueError:
            raise refusal from None
    return Plan(target=target, tensors=model.state_dict, files={f"{MODULE}.py": source})


def _source(outline: Outline) -> str:
    """The modeling file in the names of this family."""
    model = outline.model
    block = type(find_blocks(model)[1][0])
    removed = {kind: names for of_block in outline.removed for kind, names in of_block.items()}
    names = {
        "transformers.models.llama.modeling_llama": block.__module__,
        "LlamaDecoderLayer": block.__name__,
        "LlamaForCausalLM": type(model).__name__,
        "LlamaConfig": type(model.config).__name__,
        "per_layer_llama": f"per_layer_{model.config.model_type}",
        "self.model.layers": f"self.{outline.layers}",
        '("self_attn",)': str(removed.get("attention", ("self_attn",))).replace("'", '"'),
        '("mlp",)': str(removed.get("mlp", ("mlp",))).replace("'", '"'),
        "Llama": model.config.model_type,
    }
    template = Path(__file__).with_name(f"{MODULE}.py").read_text(encoding="utf-8")
    return re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], template)


def _all_there_is(outline: Outline) -> Settings:
    """Blocks as wide as before the cut, without what was removed from them."""
    return {"per_layer_config": {str(i): {"skip": [*gone]} if gone else {} for i, gone in enumerate(outline.removed)}}


def _in_settings(outline: Outline) -> Settings:
    """As before the cut, with the width of a head stated, and how each block differs."""
    config = outline.model.config
    computed = isinstance(getattr(type(config), "head_dim", None), property)  # Falcon
    own: Settings = {} if computed else {"head_dim": outline.head_dim}
    usual, per_block = config.to_dict() | own, {}
    for index, (widths, removed) in enumerate(zip(outline.widths, outline.removed, strict=True)):
        stated = width_settings(config, widths, outline.head_dim)
        # GPT-J stores other names
        different: Settings = {
            name: value for name, value in stated.items() if usual.get(name, getattr(config, name, None)) != value
        }
        if removed:
            different["skip"] = [*removed]
        per_block[str(index)] = different
    return own | {"per_layer_config": per_block}


def _in_shapes(outline: Outline, wide: PreTrainedModel) -> Settings:
    """By how each block differs from that of `wide`, which is as `_all_there_is` builds it."""
    per_block = {}
    blocks = zip(find_blocks(outline.model)[1], find_blocks(wide)[1], outline.removed, strict=True)
    for index, (block, full, removed) in enumerate(blocks):
        shapes = {
            name: [linear.out_features, linear.in_features]
            for name, linear in linears_of(block).items()
            if linear.weight.shape != full.get_parameter(f"{name}.weight").shape
        }
        different: Settings = {"shapes": shapes, "numbers": dict(_numbers(block).items() - _numbers(full).items())}
        per_block[str(index)] = different | ({"skip": [*removed]} if removed else {})
    return {"per_layer_config": per_block}


def _numbers(block: nn.Module) -> dict[str, int]:
    """Whole numbers that the modules of a block keep, linears apart, by module and attribute."""
    return {
        f"{name}.{attribute}": number
        for name, module in block.named_modules()
        if not isinstance(module, nn.Linear)
        for attribute, number in vars(module).items()
        if type(number) is int
    }
