"""Expected producers are written down per family; the code under test knows no family."""

import pytest
import torch
from transformers import (
    GPTJConfig,
    GPTJForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)

from tasks.calibrate.calls import record_calls
from tasks.model.anatomy import dissect
from tasks.prune.weight.fold import Folding, find_folding, fold
from tasks.prune.weight.pattern import NM
from tasks.prune.weight.permute import permute_within, retained
from tests.cases import FAMILIES, batches, gemma, llama, opt, qwen2

ATTENTION, FFN = "self_attn.o_proj", "mlp.down_proj"
VALUES = ("self_attn.v_proj",)
GATED = {
    ATTENTION: Folding(producers=VALUES, width=8, shared=2),
    FFN: Folding(producers=("mlp.gate_proj", "mlp.up_proj"), width=64, shared=1),
}
OPT = {
    "self_attn.out_proj": Folding(producers=VALUES, width=8, shared=1),
    "fc2": Folding(producers=("fc1",), width=64, shared=1),
}
NEOX = {"mlp.dense_4h_to_h": Folding(producers=("mlp.dense_h_to_4h",), width=64, shared=1)}
EXPECTED = {"opt": OPT, "opt_post_norm": OPT, "gpt_neox": NEOX}


def gpt_j():
    """Attention and FFN side by side: what makes the input of fc_out does not stand in the group before it."""
    torch.manual_seed(0)
    config = GPTJConfig(vocab_size=97, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, bos_token_id=1, eos_token_id=2)
    return GPTJForCausalLM(config).eval()


def phi3():
    """q, k and v in one linear, gate and up in one: nothing folds."""
    torch.manual_seed(0)
    shape = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return Phi3ForCausalLM(Phi3Config(**shape, **special, num_attention_heads=4, num_key_value_heads=2)).eval()


def foldings(model):
    """`foldings[block][linear]`, without those that do not fold."""
    anatomy = dissect(model)
    with torch.no_grad():
        hidden, calls = zip(*record_calls(model, anatomy, batches((1, 8))), strict=True)
    found = []
    for block, groups, call in zip(anatomy.blocks, anatomy.shared_inputs, calls[0], strict=True):
        each = {name: find_folding(block, groups, name, call, hidden[0].shape) for group in groups for name in group}
        found.append({name: folding for name, folding in each.items() if folding is not None})
    return found


def admissible(folding, inputs, generator):
    """Drawn at random, head by head."""
    order = []
    for first in range(0, inputs, folding.width * folding.shared):
        slots = torch.randperm(folding.width, generator=generator).tolist()
        for head in range(folding.shared):
            order += [first + head * folding.width + slot for slot in slots]
    return torch.tensor(order)


def logits(model):
    with torch.no_grad():
        return model(batches((2, 16))[0]).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_who_makes_an_input_is_found_without_names(family):
    assert all(found == EXPECTED.get(family, GATED) for found in foldings(FAMILIES[family]()))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: llama(num_key_value_heads=4), {**GATED, ATTENTION: Folding(producers=VALUES, width=8, shared=1)}),
        (lambda: qwen2(num_key_value_heads=1), {**GATED, ATTENTION: Folding(producers=VALUES, width=8, shared=4)}),
        (lambda: gemma(head_dim=16), {**GATED, ATTENTION: Folding(producers=VALUES, width=16, shared=2)}),
        (lambda: llama().bfloat16(), GATED),
        (lambda: opt().train(), OPT),
        (phi3, {}),
        (
            gpt_j,
            {
                "attn.out_proj": Folding(producers=("attn.v_proj",), width=8, shared=1),
                "mlp.fc_out": Folding(producers=("mlp.fc_in",), width=128, shared=1),
            },
        ),
    ],
    ids=[
        "all heads apart",
        "one value head",
        "heads wider than the model",
        "bfloat16",
        "training",
        "fused",
        "parallel",
    ],
)
def test_other_shapes_of_a_block(make, expected):
    assert all(found == expected for found in foldings(make()))


@pytest.mark.parametrize("make", [*FAMILIES.values(), gpt_j], ids=lambda make: make.__name__)
def test_folding_any_admissible_order_leaves_the_logits(make):
    model = make()
    anatomy, dense = dissect(model), logits(model)
    generator = torch.Generator().manual_seed(0)
    for index, found in enumerate(foldings(model)):
        assert found
        for name, folding in found.items():
            linear = anatomy.linears(index)[name]
            order_I = admissible(folding, linear.in_features, generator)
            before_OI = linear.weight.detach().clone()
            fold(anatomy.blocks[index], name, order_I, folding)
            assert torch.equal(linear.weight, before_OI[:, order_I])
            assert not torch.equal(linear.weight, before_OI)
    assert ((logits(model) - dense).norm() / dense.norm()).item() < 1e-5


def test_asking_changes_nothing():
    model = llama().train()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    foldings(model)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert all(module.training for module in model.modules())
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]


class Scale(torch.nn.Module):
    """Each channel times a number of its own."""

    def forward(self, x):
        return x * torch.linspace(1, 2, x.shape[-1])


def test_where_moving_the_rows_alone_would_be_wrong_nothing_folds():
    model = opt()
    for block in model.model.decoder.layers:
        block.activation_fn = Scale()
    assert all(list(found) == ["self_attn.out_proj"] for found in foldings(model))


def test_the_found_order_folds_and_retains_more():
    model = qwen2()
    anatomy, dense, pattern = dissect(model), logits(model), NM(2, 4)
    for index, found in enumerate(foldings(model)):
        for name, folding in found.items():
            linear = anatomy.linears(index)[name]
            before = retained(linear.weight.abs(), pattern)
            order_I = permute_within(linear.weight.abs(), pattern, folding.width, folding.shared)
            fold(anatomy.blocks[index], name, order_I, folding)
            assert retained(linear.weight.abs(), pattern) > before
    assert ((logits(model) - dense).norm() / dense.norm()).item() < 1e-5


def test_rows_of_an_order():
    folding = Folding(producers=("v",), width=2, shared=2)
    assert folding.rows(torch.tensor([1, 0, 3, 2, 4, 5, 6, 7])).tolist() == [1, 0, 2, 3]


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ([2, 1, 0, 3, 4, 5, 6, 7], "leave their head"),
        ([1, 0, 2, 3, 4, 5, 6, 7], "the same for 2 consecutive heads"),
        ([0, 0, 2, 2, 4, 5, 6, 7], "leave their head"),
        ([0, 1, 2, 3, 4, 5], "a multiple of 4"),
    ],
)
def test_an_order_that_cannot_be_folded_is_told(order, told):
    with pytest.raises(ValueError, match=told) as error:
        Folding(producers=("v",), width=2, shared=2).rows(torch.tensor(order))
    assert "\n" not in str(error.value)


def test_bad_input_moves_nothing():
    model = llama()
    block, groups = dissect(model).blocks[0], dissect(model).shared_inputs[0]
    dense = logits(model)
    with pytest.raises(ValueError, match=r"order: 32 inputs given, mlp.down_proj has 64"):
        fold(block, FFN, torch.arange(32), Folding(producers=GATED[FFN].producers, width=32, shared=1))
    with pytest.raises(ValueError, match="leave their head"):
        fold(block, ATTENTION, torch.arange(32).flip(0), GATED[ATTENTION])
    with pytest.raises(ValueError, match=r"linear: 'o_proj' given, valid is one of self_attn.q_proj, "):
        find_folding(block, groups, "o_proj", None, (1, 8, 32))
    assert torch.equal(logits(model), dense)
