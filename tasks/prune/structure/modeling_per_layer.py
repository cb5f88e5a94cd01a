"""A Llama whose blocks have widths of their own: `per_layer_config` in config.json says where one differs, and `skip`
there what it does without, "attention" or "mlp". What its class takes from no setting stands there under `shapes`, the
outputs and inputs of a linear, and `numbers`. Needs torch and transformers, nothing else.
"""

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

ATTENTION, FFN = ("self_attn",), ("mlp",)  # the modules of a block that are its attention, and its FFN


@strict
class PerLayerLlamaConfig(LlamaConfig):
    """That of a Llama with `per_layer_config`; `head_dim` is stated, as it follows from no number of heads."""

    model_type = "per_layer_llama"

    def validate_architecture(self) -> None:
        """The heads of a block need not divide the width of the model."""


class PerLayerLlamaForCausalLM(LlamaForCausalLM):
    """A Llama with each block built from its own part of the configuration."""

    config_class = PerLayerLlamaConfig

    def __init__(self, config: PerLayerLlamaConfig) -> None:
        alike: Any = config.per_layer_config[0]
        super().__init__(alike)  # for all that surrounds the blocks
        config._attn_implementation = alike._attn_implementation
        for index, (of_block, slot) in enumerate(zip(config.per_layer_config, cache_slots(config), strict=True)):
            self.model.layers[index] = build_block(of_block, slot)
        for module in self.modules():
            if "config" in vars(module):  # a part of it served to build this one; what is set later is for all
                vars(module)["config"] = config
        self.post_init()


class NoAttention(nn.Module):
    """In the place of a block's attention: adds nothing."""

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, None]:
        return torch.zeros_like(hidden_states), None


class NoFFN(nn.Module):
    """In the place of a block's FFN: adds nothing."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return torch.zeros_like(hidden_states)


def build_block(of_block: Any, slot: int) -> LlamaDecoderLayer:
    block = LlamaDecoderLayer(of_block, slot)
    for name in ATTENTION if skips("attention", of_block) else ():
        setattr(block, name, NoAttention())
    for name in FFN if skips("mlp", of_block) else ():
        setattr(block, name, NoFFN())
    for name, (outputs, inputs) in getattr(of_block, "shapes", {}).items():
        block.set_submodule(name, nn.Linear(inputs, outputs, bias=block.get_submodule(name).bias is not None))
    for name, number in getattr(of_block, "numbers", {}).items():
        module, _, attribute = name.rpartition(".")
        setattr(block.get_submodule(module), attribute, number)
    return block


def cache_slots(config: PerLayerLlamaConfig) -> list[int]:
    """Blocks with attention take the first slots of their kind, as a cache counts its tokens there."""
    kinds = getattr(config, "layer_types", None) or [""] * config.num_hidden_layers
    free = {kind: [slot for slot, of_slot in enumerate(kinds) if of_slot == kind] for kind in kinds}
    blocks = zip(kinds, config.per_layer_config, strict=True)
    return [free[kind].pop(-1 if skips("attention", of_block) else 0) for kind, of_block in blocks]


def skips(part: str, of_block: Any) -> bool:
    return part in getattr(of_block, "skip", ())
