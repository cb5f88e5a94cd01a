"""Tiny random models of every family that is supported, and ids to feed them: the cases of the whole suite."""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCABULARY = 97
WIDTH, FFN, BLOCKS, WINDOW = 32, 64, 3, 24
SLIDING = 8  # shorter than WINDOW, so that a sliding block and a full one really differ
SHAPE = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": 4}
GATED = {"intermediate_size": FFN, "num_key_value_heads": 2, "max_position_embeddings": 64}
MIXED = {"head_dim": 8, "sliding_window": SLIDING, "layer_types": ["sliding_attention", "full_attention"] * 2}


def llama(**changes) -> PreTrainedModel:
    return _make(LlamaForCausalLM, LlamaConfig, {**SHAPE, **GATED, **changes})


def qwen2(**changes) -> PreTrainedModel:
    return _make(Qwen2ForCausalLM, Qwen2Config, {**SHAPE, **GATED, **changes})


def qwen3(**changes) -> PreTrainedModel:
    return _make(Qwen3ForCausalLM, Qwen3Config, {**SHAPE, **GATED, "head_dim": 8, **changes})


def mistral(**changes) -> PreTrainedModel:
    return _make(MistralForCausalLM, MistralConfig, {**SHAPE, **GATED, "sliding_window": SLIDING, **changes})


def opt(**changes) -> PreTrainedModel:
    shape = {"ffn_dim": FFN, "word_embed_proj_dim": WIDTH, "max_position_embeddings": 64}
    return _make(OPTForCausalLM, OPTConfig, {**SHAPE, **shape, **changes})


def opt_post_norm(**changes) -> PreTrainedModel:
    """As OPT-350m: norms after the residual, a projection between embeddings and blocks."""
    return opt(do_layer_norm_before=False, word_embed_proj_dim=16, **changes)


def gemma(**changes) -> PreTrainedModel:
    return _make(GemmaForCausalLM, GemmaConfig, {**SHAPE, **GATED, "head_dim": 8, **changes})


def gemma2(**changes) -> PreTrainedModel:
    return _make(Gemma2ForCausalLM, Gemma2Config, {**SHAPE, **GATED, **MIXED, "num_hidden_layers": 4, **changes})


def gemma3(**changes) -> PreTrainedModel:
    return _make(Gemma3ForCausalLM, Gemma3TextConfig, {**SHAPE, **GATED, **MIXED, "num_hidden_layers": 4, **changes})


def gpt_neox(**changes) -> PreTrainedModel:
    shape = {"intermediate_size": FFN, "max_position_embeddings": 64}
    return _make(GPTNeoXForCausalLM, GPTNeoXConfig, {**SHAPE, **shape, **changes})


FAMILIES: dict[str, Callable[..., PreTrainedModel]] = {
    make.__name__: make for make in (llama, qwen2, qwen3, mistral, opt, opt_post_norm, gemma, gemma2, gemma3, gpt_neox)
}


def batches(*shapes: tuple[int, int], seed: int = 1) -> list[Tensor]:
    """Random ids of the given shapes (windows, tokens); by default two batches that differ in size."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, VOCABULARY, shape, generator=generator) for shape in shapes or ((3, WINDOW), (2, WINDOW))]


def _make(model_class: type, config_class: type, settings: dict) -> PreTrainedModel:
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = model_class(config_class(**{**special, **settings})).eval()
    with torch.no_grad():  # as trained models have them: norms that are not 1, biases that are not 0
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model
