import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from tasks.model.anatomy import dissect, find_blocks
from tests.cases import BLOCKS, FAMILIES, gemma2, llama, opt_post_norm

GATED = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
OPT = (GATED[0], ("self_attn.out_proj",), ("fc1",), ("fc2",))
NEOX = (("attention.query_key_value",), ("attention.dense",), ("mlp.dense_h_to_4h",), ("mlp.dense_4h_to_h",))
EXPECTED = {"opt": ("model.decoder.layers", OPT), "gpt_neox": ("gpt_neox.layers", NEOX)}


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_and_shared_inputs_are_found_without_names(family):
    model = FAMILIES[family]()
    anatomy = dissect(model)
    name, groups = EXPECTED.get(family.removesuffix("_post_norm"), ("model.layers", GATED))
    assert anatomy.name == name
    assert len(anatomy.blocks) == model.config.num_hidden_layers
    assert anatomy.shared_inputs == (groups,) * len(anatomy.blocks)
    assert not anatomy.returns_tuple


def test_every_linear_of_a_block_is_there_once_and_no_other():
    model = llama()
    anatomy = dissect(model)
    found = [anatomy.linears(index)[name] for index in range(BLOCKS) for name in anatomy.linears(index)]
    inside = [
        module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not model.lm_head
    ]
    assert len(found) == len(inside) == 7 * BLOCKS
    assert set(found) == set(inside)
    assert model.get_submodule(anatomy.qualified(1, "mlp.up_proj")) is anatomy.linears(1)["mlp.up_proj"]


def test_a_projection_outside_the_blocks_stays_dense():
    anatomy = dissect(opt_post_norm())
    assert not [name for index in range(BLOCKS) for name in anatomy.linears(index) if "project" in name]


def test_parallel_attention_and_ffn_share_one_input():
    config = GPTJConfig(vocab_size=97, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, bos_token_id=1, eos_token_id=2)
    anatomy = dissect(GPTJForCausalLM(config))
    assert anatomy.returns_tuple
    assert anatomy.shared_inputs[0] == (
        ("attn.q_proj", "attn.k_proj", "attn.v_proj", "mlp.fc_in"),
        ("attn.out_proj",),
        ("mlp.fc_out",),
    )


def test_a_family_with_its_own_attention_arguments():
    anatomy = dissect(BloomForCausalLM(BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4)))
    assert anatomy.name == "transformer.h"
    assert len(anatomy.linears(0)) == 4


def test_the_model_is_left_as_it_was():
    model = gemma2()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    dissect(model)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    own_hooks = [m for m in find_blocks(model)[1].modules() if isinstance(m, torch.nn.Linear) and m._forward_pre_hooks]
    assert not own_hooks


def test_conv1d_is_refused_by_name():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2))
    with pytest.raises(ValueError, match=r"GPT2LMHeadModel keeps 0.attn.c_attn.weight \(32, 96\) in a Conv1D"):
        dissect(model)


def test_experts_are_refused():
    shape = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4}
    with pytest.raises(ValueError, match="MixtralForCausalLM"):
        dissect(MixtralForCausalLM(MixtralConfig(**shape, **heads)))


def test_a_linear_that_runs_twice_is_refused():
    model = llama()
    model.model.layers[1].mlp.up_proj = model.model.layers[1].mlp.gate_proj
    with pytest.raises(ValueError, match=r"model.layers.1.mlp.gate_proj ran 2 times"):
        dissect(model)


def test_blocks_out_of_order_are_refused():
    model = llama()
    model.model.layers[0], model.model.layers[1] = model.model.layers[1], model.model.layers[1]
    with pytest.raises(ValueError, match="not one after the other"):
        dissect(model)
