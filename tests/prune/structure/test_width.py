import pytest
import torch
from torch import nn

from tasks.model.anatomy import find_blocks
from tasks.model.units import units_of
from tasks.prune.structure.slice import Slice
from tasks.prune.structure.width import masked, rounded, slice_units
from tests.cases import BLOCKS, FAMILIES, FFN, batches, gpt_neox, llama, opt, qwen2

CUTTABLE = [family for family in FAMILIES if family != "gpt_neox"]
TOLERANCE = 1e-5


def indices(*kept):
    return torch.tensor(kept, dtype=torch.int64)


CUTS = {  # of one block each; every block has another
    "head_groups": {0: indices(1), 2: indices(0)},
    "query_heads": {0: indices(0, 3), 1: indices(1, 2)},
    "channels": {0: indices(*range(0, FFN, 2)), 1: indices(63), 2: indices(*range(5, 23))},
}
CASES = [
    (family, kind) for family in CUTTABLE for kind in CUTS if not (family.startswith("opt") and kind == "query_heads")
]


def kept_of(kind):
    return {block: {kind: kept_U} for block, kept_U in CUTS[kind].items()}


@torch.no_grad()
def logits(model):
    return torch.cat([model(ids).logits.flatten() for ids in batches()])


@torch.no_grad()
def zero_weights(model, kept):
    """Set the weights and biases of the other units to zero, by the definition of head groups and channels."""
    blocks, units = find_blocks(model)[1], units_of(model)
    for index, kinds in kept.items():
        for kind, kept_U in kinds.items():
            of_kind, block = units[index].of(kind), blocks[index]
            for unit in set(range(of_kind.count)) - set(kept_U.tolist()):
                for name, each in of_kind.rows_each.items():
                    for parameter in block.get_submodule(name).parameters():
                        parameter[unit * each : (unit + 1) * each] = 0
                each = of_kind.columns_each
                block.get_submodule(of_kind.reader).weight[:, unit * each : (unit + 1) * each] = 0


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_removing_equals_masking_and_zero_weights(family, kind):
    model, zeroed = FAMILIES[family](), FAMILIES[family]()
    dense = logits(model)
    zero_weights(zeroed, kept_of(kind))
    expected = logits(zeroed)
    assert (expected - dense).abs().max() > 100 * TOLERANCE
    with masked(model, kept_of(kind)):
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=TOLERANCE)
    assert torch.equal(logits(model), dense)
    slice_units(model, kept_of(kind))
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=TOLERANCE)
    assert sum(parameter.numel() for parameter in model.parameters()) < sum(p.numel() for p in zeroed.parameters())


def test_masking_nothing_changes_nothing():
    model = llama()
    dense = logits(model)
    with masked(model, {0: {"channels": torch.arange(FFN), "head_groups": indices(0, 1)}}):
        assert torch.equal(logits(model), dense)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", CUTS)
def test_removing_equals_masking_on_a_gpu(kind):
    model = llama().cuda()
    ids = batches((3, 24))[0].cuda()
    with torch.no_grad(), masked(model, kept_of(kind)):
        expected = model(ids).logits
    with torch.no_grad(), slice_units(model, kept_of(kind)):
        torch.testing.assert_close(model(ids).logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_implementation_of_attention_follows(attention):
    model, zeroed = llama(), llama()
    zero_weights(zeroed, kept_of("query_heads"))
    expected = logits(zeroed)
    model.set_attn_implementation(attention)
    slice_units(model, kept_of("query_heads"))
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("family", CUTTABLE)
def test_slicing_nothing_is_the_identity(family):
    model = FAMILIES[family]()
    before = dict(model.named_parameters())
    every = {
        block.block: {kind: torch.arange(units.count) for kind, units in block.kinds.items() if kind != "query_heads"}
        for block in units_of(model)
    }
    slice_units(model, every)
    slice_units(model, {})
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_restoring_puts_the_very_same_model_back(family, kind):
    model = FAMILIES[family]()
    modules, parameters, dense = dict(model.named_modules()), dict(model.named_parameters()), logits(model)
    attributes = {name: dict(vars(module)) for name, module in modules.items()}
    numbers = {name: {k: v for k, v in held.items() if isinstance(v, int)} for name, held in attributes.items()}
    with slice_units(model, kept_of(kind)) as made:
        cut = logits(model)
        made.restore()
        assert torch.equal(logits(model), dense)
        made.apply()
        assert torch.equal(logits(model), cut)
    assert torch.equal(logits(model), dense)
    assert list(dict(model.named_modules()).items()) == list(modules.items())
    assert all(after is parameters[name] for name, after in model.named_parameters())
    after = {name: {k: v for k, v in vars(m).items() if isinstance(v, int)} for name, m in model.named_modules()}
    assert after == numbers


@pytest.mark.parametrize("family", CUTTABLE)
def test_all_kinds_together_and_generation_with_and_without_the_cache(family):
    model, zeroed = FAMILIES[family](), FAMILIES[family]()
    kept = {
        0: {"head_groups": indices(1), "channels": indices(*range(17))},
        1: {"channels": indices(*range(40, 64))},
        2: {"head_groups": indices(0), "channels": indices(3, 5)},
    }
    zero_weights(zeroed, kept)
    slice_units(model, kept)
    torch.testing.assert_close(logits(model), logits(zeroed), rtol=0, atol=TOLERANCE)
    ids = batches((2, 7))[0]
    sizes = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
    with_cache = model.generate(ids, use_cache=True, **sizes)
    assert with_cache.shape == (2, 19)
    assert torch.equal(with_cache, model.generate(ids, use_cache=False, **sizes))
    assert torch.equal(with_cache, zeroed.generate(ids, use_cache=True, **sizes))


@pytest.mark.parametrize("family", CUTTABLE)
def test_the_cached_steps_of_a_cut_model_are_its_forward(family):
    model = FAMILIES[family]()
    slice_units(model, {0: {"head_groups": indices(1)}})
    ids = batches((2, 20))[0]
    with torch.no_grad():
        whole = model(ids).logits
        cache, steps = None, []
        for step in ids.split([9, 1, 1, 5, 4], dim=1):
            out = model(step, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            steps.append(out.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=0, atol=TOLERANCE)
    heads = [layer.keys.shape[1] for layer in cache.layers]
    assert heads[0] == 1 < heads[1] == heads[2]


def test_one_cut_after_another_and_undone_in_reverse():
    model, zeroed = llama(), llama()
    zero_weights(zeroed, {0: {"head_groups": indices(1)}, 1: {"query_heads": indices(0, 2)}})
    zero_weights(zeroed, {0: {"query_heads": indices(3)}})
    dense = logits(model)
    first = slice_units(model, {0: {"head_groups": indices(1)}, 1: {"query_heads": indices(0, 2)}})
    second = slice_units(model, {0: {"query_heads": indices(1)}})  # of the one group that is left
    torch.testing.assert_close(logits(model), logits(zeroed), rtol=0, atol=TOLERANCE)
    cut = logits(model)
    with pytest.raises(RuntimeError, match="undo first what was cut later"):
        first.restore()
    assert torch.equal(logits(model), cut)
    second.restore()
    first.restore()
    assert torch.equal(logits(model), dense)


def test_units_that_are_known_serve_until_the_next_cut():
    model, other = llama(), llama()
    units = units_of(model)
    slice_units(model, kept_of("channels"), units)
    slice_units(other, kept_of("channels"))
    assert torch.equal(logits(model), logits(other))
    with pytest.raises(ValueError, match="block 0 are not the model's; it has been cut since"):
        slice_units(model, kept_of("channels"), units)


def test_dtype_mode_and_frozen_parameters_stay():
    model = qwen2().to(torch.bfloat16).eval()
    model.model.layers[0].mlp.requires_grad_(False)
    slice_units(model, {0: {"channels": indices(1, 2), "head_groups": indices(0)}})
    gate, k = model.model.layers[0].mlp.gate_proj, model.model.layers[0].self_attn.k_proj
    assert type(gate) is nn.Linear
    assert gate.weight.shape == (2, 32)
    assert (gate.weight.dtype, gate.weight.requires_grad, gate.training) == (torch.bfloat16, False, False)
    assert (k.weight.requires_grad, k.bias.requires_grad, k.bias.shape) == (True, True, (8,))


def test_the_original_is_not_written_to_by_the_cut_one():
    model = opt()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with slice_units(model, kept_of("head_groups") | {1: {"channels": indices(0)}}), torch.no_grad():
        blocks = find_blocks(model)[1]
        cut = [blocks[0].self_attn.q_proj, blocks[0].self_attn.out_proj, blocks[1].fc1, blocks[1].fc2]
        for linear in cut:
            linear.weight.zero_()
            linear.bias.zero_()
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({BLOCKS: {"channels": indices(0)}}, "block 3 given, valid is 0 to 2"),
        ({-1: {"channels": indices(0)}}, "block -1 given"),
        ({0: {"channel": indices(0)}}, "channel given, block 0 of this llama has head_groups, query_heads, channels"),
        ({0: {"channels": indices()}}, "one or more int64"),
        ({0: {"channels": indices(2, 1)}}, "ascending, different"),
        ({0: {"channels": indices(1, 1)}}, "ascending, different"),
        ({0: {"channels": indices(FFN)}}, "indices 0 to 63"),
        ({0: {"query_heads": indices(0)}}, "1, 0 kept in its 2 groups"),
        ({0: {"query_heads": indices(0, 2), "head_groups": indices(0)}}, "cut one, then the other"),
    ],
)
def test_bad_input_changes_nothing(kept, message):
    model = llama()
    before = dict(model.named_modules())
    with pytest.raises(ValueError, match=message):
        slice_units(model, {1: {"channels": indices(0)}} | kept)
    with pytest.raises(ValueError, match=message), masked(model, {1: {"channels": indices(0)}} | kept):
        pass
    assert dict(model.named_modules()) == before


def test_a_family_without_the_unit_says_what_it_has():
    model = gpt_neox()
    with pytest.raises(ValueError, match="head_groups given, block 0 of this gpt_neox has channels, attention, f"):
        slice_units(model, {0: {"head_groups": indices(0)}})
    zeroed = gpt_neox()
    zero_weights(zeroed, {0: {"channels": indices(1, 7)}})
    slice_units(model, {0: {"channels": indices(1, 7)}})
    torch.testing.assert_close(logits(model), logits(zeroed), rtol=0, atol=TOLERANCE)


def test_a_slice_that_replaced_nothing_is_undone():
    made = Slice()
    made.restore()
    made.apply()


@pytest.mark.parametrize(
    ("channels", "expected"),
    [(1, 64), (64, 64), (95, 64), (96, 128), (700, 704), (980, 960), (999, 1000), (1000, 1000)],
)
def test_widths_go_to_the_nearest_step(channels, expected):
    assert rounded(channels, full=1000) == expected


def test_widths_that_cannot_be_rounded():
    assert rounded(7, full=10, round_to=1) == 7
    with pytest.raises(ValueError, match="round_to: 64 given, valid is 1 to the 48 channels"):
        rounded(24, full=48)
    with pytest.raises(ValueError, match="round_to: 0 given"):
        rounded(24, full=48, round_to=0)
    with pytest.raises(ValueError, match="channels: 0 given, valid is 1 to 640"):
        rounded(0, full=640)
    with pytest.raises(ValueError, match="channels: 641 given"):
        rounded(641, full=640)
