import copy
from typing import get_args

import pytest
import torch
from torch import nn

from tasks.calibrate.observers import InputGram
from tasks.model.anatomy import dissect
from tasks.prune import PRUNERS
from tasks.prune.allocation import Allocation
from tasks.prune.weight.apply import prune_blocks, prune_model
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import NM, Unstructured, parse_pattern
from tasks.prune.weight.pruner import ScorePruner
from tasks.prune.weight.recipe import Order, Recipe
from tasks.prune.weight.sparsegpt import SparseGPT
from tasks.prune.weight.wanda import Wanda
from tests.cases import BLOCKS, FAMILIES, WINDOW, batches, gpt_neox, llama, opt

ORDERS = get_args(Order)
PATTERNS = ["1:4", "2:4", "3:4", "4:8", "8:16", "16:32", "50%", "50%@matrix", "70%"]
SAME_LENGTH = batches((3, WINDOW), (2, WINDOW))


def pruned(model, pruner, pattern, ids=SAME_LENGTH, **options):
    """A pruned copy of the model, and the rows."""
    model = copy.deepcopy(model)
    return model, prune_model(model, pruner, parse_pattern(pattern), ids, **options)


def weights(model):
    """Every linear of every block by its name in the model."""
    anatomy = dissect(model)
    named = [
        (anatomy.qualified(index, name), index, name)
        for index in range(len(anatomy.blocks))
        for name in anatomy.linears(index)
    ]
    return {qualified: anatomy.linears(index)[name].weight for qualified, index, name in named}


@torch.no_grad()
def inputs_of(model, names, ids):
    """What each linear reads in plain forwards of the whole model."""
    seen = {name: [] for name in names}

    def hook(name):
        return lambda module, args: seen[name].append(args[0].reshape(-1, args[0].shape[-1]))

    handles = [model.get_submodule(name).register_forward_pre_hook(hook(name)) for name in names]
    for ids_BT in ids:
        model(ids_BT)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}


def naive(model, pruner, pattern, ids, order):
    """The whole model runs for every block (or every group of a block); every linear has an observer of its own."""
    model = copy.deepcopy(model)
    anatomy = dissect(model)
    for index in range(len(anatomy.blocks)):
        groups = anatomy.shared_inputs[index]
        for together in groups if order == "group" else [[name for group in groups for name in group]]:
            names = [anatomy.qualified(index, name) for name in together]
            for name, x_TI in inputs_of(model, names, ids).items():
                stat = pruner.observes(x_TI.shape[1], "cpu")
                stat.update(x_TI)
                weight_OI = model.get_submodule(name).weight.data
                weight_OI.copy_(pruner.prune(weight_OI, stat, parse_pattern(pattern)))
    return model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pruner_pattern_and_family(family, name, pattern):
    dense, pruner, parsed = FAMILIES[family](), PRUNERS[name](), parse_pattern(pattern)
    model, rows = pruned(dense, pruner, pattern)
    before, after = weights(dense), weights(model)
    assert len(rows) == len(after)
    for row, (qualified, weight_OI) in zip(rows, after.items(), strict=True):
        keep = weight_OI != 0
        if isinstance(parsed, NM):
            assert (keep.reshape(-1, parsed.m).sum(1) == parsed.n).all()
        elif isinstance(pruner, ScorePruner) and parsed.within == "row":
            assert ((~keep).sum(1) == int(row.in_features * parsed.sparsity)).all()
        else:
            assert row.zeros == int(weight_OI.numel() * parsed.sparsity)
        if isinstance(pruner, ScorePruner):
            assert torch.equal(weight_OI[keep], before[qualified][keep])
        assert qualified.endswith(f"{row.block}.{row.linear}")
        assert row.zeros == (~keep).sum()
        assert row.sparsity == row.zeros / weight_OI.numel()
        assert (row.error is None) == (pruner.observes is None)
    others = {
        name: parameter for name, parameter in model.named_parameters() if name.removesuffix(".weight") not in after
    }
    originals = dict(dense.named_parameters())
    assert others
    assert all(torch.equal(parameter, originals[name]) for name, parameter in others.items())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("pruner", "pattern"), [(Wanda(), "50%"), (SparseGPT(), "2:4")], ids=str)
@pytest.mark.parametrize("order", ORDERS)
def test_calibrated_on_what_the_pruned_part_before_produces(family, pruner, pattern, order):
    dense = FAMILIES[family]().double()
    model, _ = pruned(dense, pruner, pattern, order=order)
    expected = weights(naive(dense, pruner, pattern, SAME_LENGTH, order))
    for name, weight_OI in weights(model).items():
        torch.testing.assert_close(weight_OI, expected[name])


def test_windows_of_different_lengths():
    dense, ids = llama().double(), batches((3, WINDOW), (2, 7), (1, 1))
    model, _ = pruned(dense, SparseGPT(), "2:4", ids)
    expected = weights(naive(dense, SparseGPT(), "2:4", ids, "block"))
    for name, weight_OI in weights(model).items():
        torch.testing.assert_close(weight_OI, expected[name])


def test_the_batching_does_not_matter():
    ids_BT = torch.cat(SAME_LENGTH)
    whole, _ = pruned(llama().double(), SparseGPT(), "2:4", [ids_BT])
    single, _ = pruned(llama().double(), SparseGPT(), "2:4", ids_BT.split(1))
    for name, weight_OI in weights(whole).items():
        torch.testing.assert_close(weight_OI, weights(single)[name])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("make", [llama, opt, gpt_neox])
def test_a_shared_input_is_observed_once(make, order):
    class Counted(InputGram):
        made = 0

        def __init__(self, *args):
            Counted.made += 1
            super().__init__(*args)

    class Observing(SparseGPT):
        observes = Counted

    prune_model(make(), Observing(), parse_pattern("2:4"), SAME_LENGTH, order=order)
    assert Counted.made == 4 * BLOCKS


def test_errors_are_those_of_the_outputs():
    dense = llama().double()
    model, blocks, rows = copy.deepcopy(dense), [], []
    for block, linears in prune_blocks(model, Recipe(pruner=SparseGPT(), pattern=parse_pattern("2:4")), SAME_LENGTH):
        blocks.append(block)
        rows += [linear.row for linear in linears]
    last = weights(dense)
    half = copy.deepcopy(dense)  # pruned up to the last block
    for name, weight_OI in weights(model).items():
        if f".{BLOCKS - 1}." not in name:
            half.get_submodule(name.removesuffix(".weight")).weight.data.copy_(weight_OI)
    names = [name for name in last if f".{BLOCKS - 1}." in name]
    inputs = inputs_of(half, names, SAME_LENGTH)
    for row in rows[-7:]:
        name = next(name for name in names if name.endswith(row.linear))
        before_OI, after_OI, x_TI = last[name].data, weights(model)[name].data, inputs[name]
        expected = ((after_OI - before_OI) @ x_TI.T).square().sum() / (before_OI @ x_TI.T).square().sum()
        assert row.error == pytest.approx(expected.item(), rel=1e-9)
    outputs = []
    for each in (half, model):
        with torch.no_grad():
            hooked = each.model.layers[-1].register_forward_hook(lambda *args: outputs.append(args[-1]))
            each(SAME_LENGTH[0])
            hooked.remove()
    error = (outputs[1] - outputs[0]).square().sum() / outputs[0].square().sum()
    assert blocks[-1].error == pytest.approx(error.item(), rel=1e-9)
    assert [block.block for block in blocks] == list(range(BLOCKS))
    assert all(block.sparsity == 0.5 and block.seconds > 0 for block in blocks)


def test_a_pruner_that_looks_at_weights_alone_runs_nothing():
    dense = llama()
    _, rows = pruned(dense, Magnitude(), "2:4", None)
    recipe = Recipe(pruner=Magnitude(), pattern=parse_pattern("2:4"))
    block, _ = next(iter(prune_blocks(copy.deepcopy(dense), recipe, None)))
    assert block.error is None
    assert all(row.error is None for row in rows)


@pytest.mark.parametrize(
    ("name", "order"),
    [(name, order) for name in PRUNERS for order in ORDERS if PRUNERS[name].observes or order == "block"],
)
def test_bfloat16_stays_bfloat16_and_the_mode_stays(name, order):
    model = llama().to(torch.bfloat16).train()
    model.model.norm.eval()
    prune_model(model, PRUNERS[name](), parse_pattern("2:4"), SAME_LENGTH, order=order)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.training
    assert not model.model.norm.training
    assert all(((weight_OI.reshape(-1, 4) != 0).sum(1) == 2).all() for weight_OI in weights(model).values())
    assert torch.is_grad_enabled()
    assert not any(parameter.grad_fn or not parameter.requires_grad for parameter in model.parameters())


def test_no_hook_is_left():
    model = llama()
    prune_model(model, Wanda(), parse_pattern("2:4"), SAME_LENGTH, order="group")
    prune_model(model, Wanda(), parse_pattern("2:4"), SAME_LENGTH)
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in linears)
    assert not any("forward" in vars(module) for module in model.modules())


def test_rows_arrive_block_by_block():
    model, seen = llama(), []
    rows = prune_model(
        model,
        Wanda(),
        parse_pattern("2:4"),
        SAME_LENGTH,
        on_block=lambda block, linears: seen.append((block.block, len(linears))),
    )
    assert seen == [(index, 7) for index in range(BLOCKS)]
    assert [row.linear for row in rows[:4]] == [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
    ]


def with_nan():
    model = llama()
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = torch.nan
    return model


@pytest.mark.parametrize(
    ("make", "pruner", "pattern", "ids", "options", "said"),
    [
        (
            llama,
            Wanda(),
            "3:5",
            SAME_LENGTH,
            {},
            "3:5 does not divide the 32 inputs of model.layers.0.self_attn.q_proj",
        ),
        (llama, Wanda(), "2:4", [], {}, "batches: none given"),
        (llama, Wanda(), "2:4", None, {}, "batches: none given"),
        (llama, Wanda(), "2:4", [torch.ones(5, dtype=torch.long)], {}, r"\(windows, tokens\) are needed"),
        (llama, Wanda(), "2:4", [torch.ones(2, 5)], {}, "token ids"),
        (llama, Wanda(), "2:4", SAME_LENGTH, {"order": "linear"}, "valid is block or group"),
        (llama, Magnitude(), "2:4", None, {"order": "group"}, "observes no inputs"),
        (
            llama,
            Wanda(),
            "2:4",
            batches(*[(2, 5), (2, 6)] * 9),
            {"order": "group"},
            r"windows of one length, or 16 batches; \[5, 6\]",
        ),
        (
            llama,
            Wanda(),
            "2:4",
            SAME_LENGTH,
            {"allocation": Allocation(sparsities=(0.5,))},
            "allocation: 1 blocks given, the model has 3",
        ),
        (with_nan, Magnitude(), "2:4", None, {}, "NaN or infinity in model.layers.1.mlp.up_proj.weight"),
    ],
)
def test_bad_input_is_told_before_any_work(make, pruner, pattern, ids, options, said):
    model = make()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with pytest.raises(ValueError, match=said) as error:
        prune_model(model, pruner, parse_pattern(pattern), ids, **options)
    assert "\n" not in str(error.value)
    assert all(torch.equal(now.nan_to_num(), before[name].nan_to_num()) for name, now in model.named_parameters())


def test_a_pattern_is_checked_before_it_meets_a_model():
    with pytest.raises(ValueError, match="0 <= sparsity < 1"):
        Unstructured(1.0)


def test_broken_activations_name_the_linear():
    model, first, second = opt(), torch.full((1, 5), 3), torch.full((1, 5), 4)
    model.model.decoder.embed_tokens.weight.data[4] = 1e38  # finite, and too large for a norm
    with pytest.raises(ValueError, match=r"block 0, self_attn.q_proj: calibration: NaN or infinity"):
        prune_model(model, Wanda(), parse_pattern("2:4"), [first, second])
    with pytest.raises(ValueError, match=r"NaN or infinity in the output of block 0"):
        prune_model(model, Wanda(), parse_pattern("2:4"), [second, first])


def test_damping_too_small_names_the_linear():
    with pytest.raises(ValueError, match=r"block 0, self_attn.q_proj: damp: 0.0 .* raise damp"):
        prune_model(llama(), SparseGPT(damp=0.0), parse_pattern("2:4"), batches((1, 4)))
