import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, DynamicCache, MptConfig, MptForCausalLM, StaticCache

from tasks.model.anatomy import dissect, find_blocks
from tasks.model.units import units_of
from tasks.prune.structure.depth import slice_blocks
from tasks.prune.structure.width import slice_units
from tasks.prune.weight.apply import prune_blocks
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import parse_pattern
from tasks.prune.weight.recipe import Recipe
from tasks.prune.weight.reconstruct import Reconstruct
from tasks.prune.weight.refit import Refit
from tasks.prune.weight.sparsegpt import SparseGPT
from tasks.prune.weight.wanda import Wanda
from tests.cases import BLOCKS, FAMILIES, SLIDING, batches, gemma2, gemma3, gpt_neox, llama, opt, opt_post_norm

CUTTABLE = [family for family in FAMILIES if family != "gpt_neox"]
TOLERANCE = 1e-5
CUTS = {  # for 3 blocks or 4, whose kinds of attention alternate in Gemma 2 and 3
    "first block": {"blocks": [0]},
    "inner blocks": {"blocks": [1]},
    "two blocks": {"blocks": [0, 2]},
    "first attention": {"attention": [0]},
    "inner attention": {"attention": [1]},
    "all but the last attention": {"attention": [0, 1]},
    "every other attention": {"attention": [0, 2]},
    "ffn": {"ffn": [0, 2]},
    "all of one block by parts": {"attention": [1], "ffn": [1]},
    "everything at once": {"blocks": [0], "attention": [1], "ffn": [1, 2]},
}
EVERY = [(family, cut) for family in CUTTABLE for cut in CUTS]
CACHING = ("llama", "mistral", "gemma3", "opt")  # each in its own way
FEW = {"vocab_size": 97, "num_hidden_layers": 2}
SOME = [(family, cut) for family in CACHING for cut in CUTS]


@torch.no_grad()
def logits(model):
    return torch.cat([model(ids).logits.flatten() for ids in batches()])


def silence(model, blocks=(), attention=(), ffn=()):
    """Zero the last linears, so that they add nothing; a whole block gives what it got."""
    present = find_blocks(model)[1]
    units = units_of(model)
    readers = [(index, units[index].head_groups.reader) for index in attention]
    readers += [(index, units[index].channels.reader) for index in ffn]
    with torch.no_grad():
        for index, reader in readers:
            for parameter in present[index].get_submodule(reader).parameters():
                parameter.zero_()
    for index in blocks:
        present[index].register_forward_hook(lambda _, inputs, output: inputs[0])


@pytest.mark.parametrize(("family", "cut"), EVERY)
def test_removing_equals_adding_nothing(family, cut):
    model, silent = FAMILIES[family](), FAMILIES[family]()
    dense = logits(model)
    silence(silent, **CUTS[cut])
    expected = logits(silent)
    assert (expected - dense).abs().max() > 100 * TOLERANCE
    slice_blocks(model, **CUTS[cut])
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("family", "cut"), SOME)
def test_generation_agrees_with_and_without_the_cache(family, cut):
    model, silent = FAMILIES[family](), FAMILIES[family]()
    silence(silent, **CUTS[cut])
    slice_blocks(model, **CUTS[cut])
    ids = batches((2, SLIDING - 3))[0]
    how = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    expected = silent.generate(ids, use_cache=False, **how)
    assert torch.equal(model.generate(ids, use_cache=False, **how), expected)
    assert torch.equal(model.generate(ids, use_cache=True, **how), expected)


@pytest.mark.parametrize(("family", "cut"), EVERY)
def test_the_cached_steps_are_the_forward_and_only_attention_owns_slots(family, cut):
    model = FAMILIES[family]()
    slice_blocks(model, **CUTS[cut])
    ids = batches((2, 2 * SLIDING))[0]
    cache, steps = DynamicCache(config=model.config), []
    with torch.no_grad():
        whole = model(ids).logits
        for step in ids.split([SLIDING - 2, 1, 1, 1, 5, 2], dim=1):
            steps.append(model(step, past_key_values=cache, use_cache=True).logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=0, atol=TOLERANCE)
    assert cache.get_seq_length() == 2 * SLIDING
    blocks = find_blocks(model)[1]
    attentive = [block for block in blocks if any(name.endswith("k_proj") for name, _ in block.named_modules())]
    filled = [slot for slot, layer in enumerate(cache.layers) if layer.is_initialized]
    assert sorted(block.self_attn.layer_idx for block in attentive) == filled
    assert len(cache.layers) == len(blocks) == model.config.num_hidden_layers
    assert filled[0] == 0


@pytest.mark.parametrize("make", [llama, gemma2, opt])
def test_a_static_cache_agrees(make):
    model = make()
    slice_blocks(model, attention=[0])
    ids = batches((2, 12))[0]
    cache = StaticCache(config=model.config, max_cache_len=16)
    with torch.no_grad():
        whole = model(ids).logits
        first = model(ids[:, :7], past_key_values=cache, use_cache=True).logits
        rest = model(ids[:, 7:], past_key_values=cache, use_cache=True).logits
    torch.testing.assert_close(torch.cat([first, rest], dim=1), whole, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("make", [gemma2, gemma3])
@pytest.mark.parametrize("gone", [[0, 2], [1, 3], [0, 1, 2], [0, 1, 3]])
def test_one_kind_of_attention_may_go_altogether(make, gone):
    model = make()
    slice_blocks(model, attention=gone)
    ids = batches((1, 2 * SLIDING))[0]
    how = {"max_new_tokens": SLIDING, "min_new_tokens": SLIDING, "do_sample": False}
    assert torch.equal(model.generate(ids, use_cache=True, **how), model.generate(ids, use_cache=False, **how))


@pytest.mark.parametrize(("family", "cut"), SOME)
def test_restoring_puts_the_very_same_model_back(family, cut):
    model = FAMILIES[family]()
    modules, dense, config = list(model.named_modules()), logits(model), model.config.to_dict()
    slots = {name: module.layer_idx for name, module in modules if hasattr(module, "layer_idx")}
    made = slice_blocks(model, **CUTS[cut])
    sliced = logits(model)
    made.restore()
    assert torch.equal(logits(model), dense)
    made.apply()
    assert torch.equal(logits(model), sliced)
    made.restore()
    assert list(model.named_modules()) == modules
    assert model.config.to_dict() == config
    assert {name: module.layer_idx for name, module in modules if hasattr(module, "layer_idx")} == slots


@pytest.mark.parametrize("family", FAMILIES)
def test_removing_nothing_is_the_identity(family):
    model = FAMILIES[family]()
    modules, config = list(model.named_modules()), model.config.to_dict()
    slice_blocks(model)
    assert list(model.named_modules()) == modules
    assert model.config.to_dict() == config


@pytest.mark.parametrize("family", CUTTABLE)
def test_width_and_depth_together(family):
    model, silent = FAMILIES[family](), FAMILIES[family]()
    kept = {
        1: {"head_groups": torch.tensor([1]), "channels": torch.arange(5)},
        2: {"channels": torch.tensor([3, 60])},
    }
    slice_units(silent, kept)
    silence(silent, blocks=[0], attention=[2])
    slice_units(model, kept)
    slice_blocks(model, blocks=[0], attention=[2])
    torch.testing.assert_close(logits(model), logits(silent), rtol=0, atol=TOLERANCE)
    units = units_of(model)
    assert (units[0].head_groups.count, units[1].head_groups, units[1].channels.count) == (1, None, 2)
    ids = batches((2, SLIDING - 3))[0]
    how = {"max_new_tokens": SLIDING, "min_new_tokens": SLIDING, "do_sample": False}
    assert torch.equal(model.generate(ids, use_cache=True, **how), silent.generate(ids, use_cache=False, **how))


def test_one_cut_after_another():
    model, silent = gemma3(), gemma3()
    silence(silent, blocks=[1], attention=[0, 2])
    for cut in ({"attention": [0]}, {"blocks": [1]}, {"attention": [1]}):
        slice_blocks(model, **cut)
    torch.testing.assert_close(logits(model), logits(silent), rtol=0, atol=TOLERANCE)
    ids = batches((1, 2 * SLIDING))[0]
    how = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    assert torch.equal(model.generate(ids, use_cache=True, **how), model.generate(ids, use_cache=False, **how))


def test_fused_attention_goes_as_well():
    model, silent = gpt_neox(), gpt_neox()
    with torch.no_grad():
        for parameter in find_blocks(silent)[1][1].attention.dense.parameters():
            parameter.zero_()
    slice_blocks(model, attention=[1])
    torch.testing.assert_close(logits(model), logits(silent), rtol=0, atol=TOLERANCE)
    assert [len(dissect(model).linears(index)) for index in range(BLOCKS)] == [4, 2, 4]


def test_a_norm_after_the_residual_stays():
    model = opt_post_norm()
    slice_blocks(model, attention=[1], ffn=[1])
    block = find_blocks(model)[1][1]
    hidden_BTD = torch.randn(2, 3, 32)
    with torch.no_grad():
        expected_BTD = block.final_layer_norm(block.self_attn_layer_norm(hidden_BTD))
        assert torch.equal(block(hidden_BTD), expected_BTD)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        ({"blocks": [3]}, r"blocks: \[3\] given, valid are ascending, different indices 0 to 2"),
        ({"blocks": [-1]}, r"blocks: \[-1\] given"),
        ({"attention": [1, 1]}, r"attention: \[1, 1\] given, valid are ascending"),
        ({"ffn": [2, 0]}, r"ffn: \[2, 0\] given, valid are ascending"),
        ({"blocks": [1], "attention": [0, 1]}, r"attention: \[1\] given, which blocks removes whole"),
        ({"blocks": [1], "ffn": [1]}, r"ffn: \[1\] given, which blocks removes whole"),
        ({"blocks": [0, 1, 2]}, "attention: none would be left"),
        ({"blocks": [0], "attention": [1, 2]}, "attention: none would be left"),
    ],
)
def test_bad_input_changes_nothing(cut, message):
    model = llama()
    modules, config = list(model.named_modules()), model.config.to_dict()
    with pytest.raises(ValueError, match=message):
        slice_blocks(model, **cut)
    assert list(model.named_modules()) == modules
    assert model.config.to_dict() == config


@pytest.mark.parametrize(
    ("make", "kind", "part"),
    [
        (lambda: BloomForCausalLM(BloomConfig(hidden_size=32, n_head=4, **FEW)), "attention", "BloomAttention"),
        (lambda: BloomForCausalLM(BloomConfig(hidden_size=32, n_head=4, **FEW)), "ffn", "BloomMLP"),
        (lambda: MptForCausalLM(MptConfig(d_model=32, n_heads=4, **FEW)), "ffn", "MptMLP"),
    ],
)
def test_a_part_that_adds_the_hidden_states_itself_stays(make, kind, part):
    model = make()
    modules = list(model.named_modules())
    with pytest.raises(
        ValueError, match=f"^{kind}: 1 given, but {part} itself adds the hidden states; valid are whole"
    ):
        slice_blocks(model, **{kind: [1]})
    assert list(model.named_modules()) == modules


def test_what_is_gone_cannot_go_again():
    model = llama()
    slice_blocks(model, attention=[1], ffn=[0])
    with pytest.raises(ValueError, match="attention: 1 given, that block has none"):
        slice_blocks(model, attention=[1])
    with pytest.raises(ValueError, match="channels given, block 0 of this llama has head_groups, query_heads, attent"):
        slice_blocks(model, ffn=[0])


@pytest.mark.parametrize("gone", range(BLOCKS))
@pytest.mark.parametrize(
    "recipe",
    [
        {"pruner": Magnitude()},
        {"pruner": Wanda()},
        {"pruner": Wanda(), "order": "group"},
        {"pruner": SparseGPT(), "update": Refit(drift=0.5), "reconstruct": Reconstruct(epochs=1)},
        {"pruner": Wanda(), "order": "group", "reconstruct": Reconstruct(epochs=1)},
    ],
    ids=["magnitude", "wanda", "by group", "refit, tuned", "by group, tuned"],
)
def test_a_model_whose_block_has_neither_is_still_pruned(recipe, gone):
    model = llama()
    slice_blocks(model, attention=[gone], ffn=[gone])
    made = Recipe(**recipe, pattern=parse_pattern("50%"))
    rows = [row for row, _ in prune_blocks(model, made, batches((2, 12), (2, 12)))]
    assert [row.sparsity for row in rows] == [0.0 if index == gone else 0.5 for index in range(BLOCKS)]
