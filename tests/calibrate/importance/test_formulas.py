"""Each formula against a brute force in float64, from the inputs and gradients of the model's own forward."""

import copy

import pytest
import torch
from torch import nn
from transformers import Phi3Config, Phi3ForCausalLM

from tasks.calibrate.importance import IMPORTANCES
from tasks.calibrate.importance.activation import Activation
from tasks.calibrate.importance.fisher import Fisher
from tasks.calibrate.importance.flap import FLAP
from tasks.calibrate.importance.influence import Influence
from tasks.calibrate.importance.taylor import Taylor
from tasks.calibrate.importance.wanda_sp import WandaSp
from tasks.calibrate.importance.weight_norm import WeightNorm
from tasks.model.anatomy import find_blocks
from tasks.model.units import units_of
from tasks.prune.structure.depth import slice_blocks
from tests.calibrate.importance.pieces import blocks_of, pieces, weights
from tests.cases import BLOCKS, FAMILIES, VOCABULARY, batches, gpt_neox, llama, opt

FAMILY_NAMES = ["llama", "qwen2", "qwen3", "mistral", "opt", "gemma", "gemma2"]
SHAPES = (3, 24), (2, 24), (2, 9)
CHEAP = [name for name in IMPORTANCES if name != "leave_one_out"]


def units_to_check(model):
    """(block, its number, kind, unit), all but most channels."""
    for index, (block, of_block) in enumerate(zip(blocks_of(model), units_of(model), strict=True)):
        for kind, units in of_block.kinds.items():
            for unit in range(units.count) if kind != "channels" else (0, 5, units.count - 1):
                yield block, index, kind, unit


def check(model, scores, expected):
    """`expected(block, kind, unit)` is what every score is."""
    assert all(score_U.dtype == torch.float64 for of_block in scores for score_U in of_block.values())
    for block, index, kind, unit in units_to_check(model):
        found = scores[index][kind][unit].item()
        assert found == pytest.approx(float(expected(block, kind, unit)), rel=1e-9, abs=1e-15), (index, kind, unit)


@torch.no_grad()
def inputs_of(model, ids):
    """x_TI of every linear, all of them kept."""
    seen = {}
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [
        linear.register_forward_pre_hook(
            lambda module, inputs: seen.setdefault(module, []).append(inputs[0].reshape(-1, module.in_features))
        )
        for linear in linears
    ]
    for ids_BT in ids:
        model(ids_BT)
    for hook in hooks:
        hook.remove()
    return {linear: torch.cat(parts) for linear, parts in seen.items()}


@pytest.fixture(params=FAMILY_NAMES)
def model(request):
    return FAMILIES[request.param]().double()


@torch.no_grad()
def test_weight_norm(model):
    def by_hand(block, kind, unit):
        return torch.cat([view.flatten() for _, _, view in weights(block, kind, unit)]).norm()

    check(model, WeightNorm().score(model), by_hand)


def test_activation(model):
    x_TI = inputs_of(model, batches(*SHAPES))

    def by_hand(block, kind, unit):
        _, (reader, columns) = pieces(block, kind, unit)
        return x_TI[reader][:, columns].abs().mean()

    check(model, Activation().score(model, batches(*SHAPES)), by_hand)


@torch.no_grad()
def test_wanda_sp(model):
    x_TI = inputs_of(model, batches(*SHAPES))

    def by_hand(block, kind, unit):
        _, (reader, columns) = pieces(block, kind, unit)
        return (reader.weight[:, columns].abs() * x_TI[reader][:, columns].norm(dim=0)).sum()

    check(model, WandaSp().score(model, batches(*SHAPES)), by_hand)


@torch.no_grad()
def test_flap(model):
    x_TI = inputs_of(model, batches(*SHAPES))

    def by_hand(block, kind, unit):
        _, (reader, columns) = pieces(block, kind, unit)
        return (x_TI[reader][:, columns].var(0) * reader.weight[:, columns].square().sum(0)).sum()

    check(model, FLAP().score(model, batches(*SHAPES)), by_hand)


def nll(model, ids_BT):
    """Of each window the nats of its tokens but the first, (B, T - 1)."""
    log_chances_BTV = model(ids_BT).logits[:, :-1].log_softmax(-1)
    return -log_chances_BTV.gather(-1, ids_BT[:, 1:, None]).squeeze(-1)


def products(model, loss):
    """w·g of every unit by (block, kind, unit), from autograd's own gradients of all parameters."""
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, gradient in zip(twin.parameters(), gradients, strict=True):
            parameter.zero_() if gradient is None else parameter.copy_(gradient)
    twin_of = dict(zip(blocks_of(model), blocks_of(twin), strict=True))
    return {
        (block, kind, unit): sum(
            (weight * gradient).sum().item()
            for (*_, weight), (*_, gradient) in zip(
                weights(block, kind, unit), weights(twin_of[block], kind, unit), strict=True
            )
        )
        for block, _, kind, unit in units_to_check(model)
    }


def test_taylor(model):
    found = Taylor().score(model, batches(*SHAPES))
    summed = products(model, torch.cat([nll(model, ids_BT).flatten() for ids_BT in batches(*SHAPES)]).mean())
    check(model, found, lambda *unit: abs(summed[unit]))


def test_fisher(model):
    found = Fisher().score(model, batches(*SHAPES))
    samples = [products(model, nll(model, ids_T[None]).mean()) for ids_BT in batches(*SHAPES) for ids_T in ids_BT]
    assert len(samples) == 7
    check(model, found, lambda *unit: sum(sample[unit] ** 2 for sample in samples))


@torch.no_grad()
def test_influence(model):
    found = Influence().score(model, batches(*SHAPES))
    cosines = [[] for _ in found]

    def see(index):
        def hook(block, inputs, output):
            output = output[0] if isinstance(output, tuple) else output
            dot_BT = (inputs[0] * output).sum(-1)
            cosines[index].append((dot_BT / inputs[0].norm(dim=-1) / output.norm(dim=-1)).flatten())

        return hook

    for index, block in enumerate(blocks_of(model)):
        block.register_forward_hook(see(index))
    for ids_BT in batches(*SHAPES):
        model(ids_BT)
    for of_block, cosine_T in zip(found, cosines, strict=True):
        assert list(of_block) == ["blocks", "attention", "ffn"]
        assert of_block["blocks"].tolist() == pytest.approx([1 - torch.cat(cosine_T).mean().item()], rel=1e-9)


def phi3():
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": BLOCKS}
    return Phi3ForCausalLM(Phi3Config(vocab_size=VOCABULARY, pad_token_id=0, **shape)).eval()


@pytest.mark.parametrize(
    ("make", "attention", "ffn", "scored"),
    [
        (llama, "self_attn.o_proj", "mlp.down_proj", ["attention", "ffn"]),
        (opt, "self_attn.out_proj", "fc2", ["attention", "ffn"]),
        (gpt_neox, "attention.dense", "mlp.dense_4h_to_h", ["attention", "ffn"]),
        (phi3, "self_attn.o_proj", "mlp.down_proj", ["attention"]),  # gate and up are one linear
    ],
)
@torch.no_grad()
def test_influence_of_an_attention_and_of_an_ffn(make, attention, ffn, scored):
    """The stream before and after each, from what the block got and what their last linears added to it."""
    model = make().double()
    found, streams, hooks = Influence().score(model, batches(*SHAPES)), [[] for _ in range(BLOCKS)], []
    for index, block in enumerate(find_blocks(model)[1]):
        hooks.append(block.register_forward_pre_hook(lambda _, inputs, index=index: streams[index].append([inputs[0]])))
        for name in (attention, ffn):
            last = block.get_submodule(name)
            hooks.append(
                last.register_forward_hook(
                    lambda _, inputs, output, index=index: streams[index][-1].append(
                        streams[index][-1][-1] + output.view_as(streams[index][-1][0])
                    )
                )
            )
    for ids_BT in batches(*SHAPES):
        model(ids_BT)
    for of_block, seen in zip(found, streams, strict=True):
        assert list(of_block) == ["blocks", *scored]
        for place, kind in enumerate(scored):
            pairs = [torch.nn.functional.cosine_similarity(each[place], each[place + 1], dim=-1) for each in seen]
            mean = torch.cat([cosine_BT.flatten() for cosine_BT in pairs]).mean().item()
            assert of_block[kind].tolist() == pytest.approx([1 - mean], rel=1e-9)


def test_a_block_without_a_part_has_no_score_of_it():
    model = llama()
    slice_blocks(model, attention=[0], ffn=[0, 1])
    without_attention, without_ffn, whole = Influence().score(model, batches(*SHAPES))
    assert (list(without_attention), list(without_ffn), len(whole)) == (["blocks"], ["blocks", "attention"], 3)
    assert without_attention["blocks"].item() == pytest.approx(0, abs=1e-7)  # it hands on what it got
    assert without_ffn["attention"].item() == without_ffn["blocks"].item() > 0


@pytest.mark.parametrize(("kinds", "spared"), [(("blocks",), 1), (("attention",), 0), (("blocks", "ffn"), 0)])
def test_what_is_asked_alone_is_scored_alike_and_blocks_alone_run_once(kinds, spared):
    model, ran = llama(), []
    for block in blocks_of(model):
        block.register_forward_hook(lambda *_: ran.append(1))
    every, runs = Influence().score(model, batches()), len(ran)
    found = Influence().only(kinds).score(model, batches())
    assert found == [{kind: of_block[kind] for kind in kinds} for of_block in every]
    assert 2 * runs - len(ran) == spared * BLOCKS * len(batches())


@pytest.mark.parametrize("name", IMPORTANCES)
def test_windows_may_be_dealt_out_and_ordered_as_one_likes(name):
    model = llama().double()
    ids_BT = torch.cat(batches((6, 16)))
    kinds = {"kinds": ("head_groups", "blocks")} if name == "leave_one_out" else {}
    importance = IMPORTANCES[name](**kinds)
    whole = importance.score(model, [ids_BT])
    for other in (ids_BT.split(1), ids_BT.split(4), [ids_BT.flip(0)]):
        for of_block, again in zip(whole, importance.score(model, other), strict=True):
            assert list(of_block) == list(again) != []
            for kind, score_U in of_block.items():
                torch.testing.assert_close(again[kind], score_U, rtol=1e-9, atol=1e-15)


def test_a_family_without_head_groups_has_scores_of_its_channels():
    for name in CHEAP:
        for of_block in IMPORTANCES[name]().score(gpt_neox(), batches()):
            sizes = {"blocks": 1, "attention": 1, "ffn": 1} if name == "influence" else {"channels": 64}
            assert {kind: len(score_U) for kind, score_U in of_block.items()} == sizes
