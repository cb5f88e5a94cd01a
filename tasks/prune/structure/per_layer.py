"""The per-layer form: `per_layer_config` in config.json says the widths of each block, and a small modeling file beside
the weights builds them. That file is tasks.prune.structure.modeling_per_layer, written for Llama, in the names of the
family. Loading it asks for `trust_remote_code=True` by name, as code of the folder is run.
"""

import re
from pathlib import Path
from types import ModuleType

from tasks.model.anatomy import find_blocks
from tasks.prune.structure.outline import Outline, Plan, build, check_shapes, width_settings

MODULE = "modeling_per_layer"


def per_layer(outline: Outline) -> Plan:
    """Raises ValueError for a family whose blocks do not take such widths from their configuration."""
    model = outline.model
    source, module = _source(outline), ModuleType(f"{MODULE}_{model.config.model_type}")
    exec(compile(source, f"{MODULE}.py", "exec"), vars(module))  # ours; as it is written, so it is tried
    config_name, model_name = (f"PerLayer{each.__name__}" for each in (type(model.config), type(model)))
    auto_map = {"AutoConfig": f"{MODULE}.{config_name}", "AutoModelForCausalLM": f"{MODULE}.{model_name}"}
    settings = _settings(outline) | {"auto_map": auto_map}
    target = build(getattr(module, model_name), getattr(module, config_name), settings)
    check_shapes(target, model.state_dict())
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


def _settings(outline: Outline) -> dict:
    """The configuration as it was before the cut, with the width of a head stated, and how each block differs."""
    config = outline.model.config
    own = {"model_type": f"per_layer_{config.model_type}", "head_dim": outline.head_dim}
    settings, per_block = config.to_dict() | own, {}
    for index, (widths, removed) in enumerate(zip(outline.widths, outline.removed, strict=True)):
        stated = width_settings(config, widths, outline.head_dim)
        usual = {name: settings.get(name, getattr(config, name, None)) for name in stated}  # GPT-J stores other names
        different: dict[str, object] = {name: value for name, value in stated.items() if usual[name] != value}
        if removed:
            different["skip"] = list(removed)
        per_block[str(index)] = different
    return settings | {"per_layer_config": per_block}
