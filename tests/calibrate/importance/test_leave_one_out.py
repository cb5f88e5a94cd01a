import copy

import pytest
import torch

from tasks.calibrate.importance.importance import Unit
from tasks.calibrate.importance.leave_one_out import LeaveOneOut, losses_without
from tasks.evaluate.perplexity import perplexity
from tasks.model.units import units_of
from tasks.prune.structure.depth import slice_blocks
from tasks.prune.structure.width import masked
from tests.calibrate.importance.pieces import blocks_of, pieces
from tests.cases import BLOCKS, FAMILIES, batches, gpt_neox, llama

IDS = batches((2, 24), (3, 24))
CUTTABLE = [family for family in FAMILIES if family != "gpt_neox"]


@torch.no_grad()
def loss(model):
    """In the precision of the model."""
    ids_BT = torch.cat(IDS)
    log_chances_BTV = model(ids_BT).logits[:, :-1].log_softmax(-1)
    return -log_chances_BTV.gather(-1, ids_BT[:, 1:, None]).mean().item()


@torch.no_grad()
def loss_of_zeroed(model, unit):
    """With the unit's weights set to zero: what it makes, and what is read of it."""
    model = copy.deepcopy(model)
    makers, (reader, columns) = pieces(blocks_of(model)[unit.block], unit.kind, unit.unit)
    reader.weight[:, columns] = 0
    if unit.kind == "channels":
        for linear, rows in makers:
            linear.weight[rows] = 0
    return loss(model)


@pytest.mark.parametrize("family", CUTTABLE)
def test_a_loss_without_a_unit_is_that_of_the_model_with_its_weights_at_zero(family):
    model = FAMILIES[family]().double()
    last = len(blocks_of(model)) - 1
    sample = [
        Unit(block, kind, unit)
        for block in (0, last)
        for kind, units in units_of(model)[block].kinds.items()
        for unit in (0, units.count - 1)
    ]
    found = losses_without(model, IDS, sample)
    assert list(found) == sample
    for unit in sample:
        assert found[unit] == pytest.approx(loss_of_zeroed(model, unit), rel=1e-12)


def test_it_is_the_loss_of_the_masked_model():
    model = llama()
    found = LeaveOneOut(kinds=("head_groups",)).score(model, IDS)
    for block, of_block in enumerate(found):
        for unit, other in ((0, 1), (1, 0)):
            with masked(model, {block: {"head_groups": torch.tensor([other])}}):
                assert of_block["head_groups"][unit].item() == pytest.approx(
                    perplexity(model, torch.cat(IDS).flatten(), 24).nll, rel=1e-6
                )
    assert len({score for of_block in found for score in of_block["head_groups"].tolist()}) == 2 * BLOCKS


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loss_without_a_block_is_that_of_the_model_that_goes_past_it(family):
    model = FAMILIES[family]().double()
    found = LeaveOneOut(kinds=("blocks",)).score(model, IDS)
    layers = next(
        module for module in model.modules() if isinstance(module, torch.nn.ModuleList) and len(module) >= BLOCKS
    )
    for index, block in enumerate(layers):
        hook = block.register_forward_hook(
            lambda _, inputs, output: (inputs[0],) if isinstance(output, tuple) else inputs[0]
        )
        assert found[index]["blocks"].tolist() == pytest.approx([loss(model)], rel=1e-12)
        hook.remove()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loss_without_an_attention_or_an_ffn_is_that_of_the_model_that_has_none(family):
    model = FAMILIES[family]().double()
    sample = [Unit(block, kind, 0) for block in (0, 2) for kind in ("attention", "ffn")]
    for unit, found in losses_without(model, IDS, sample).items():
        with slice_blocks(model, **{unit.kind: [unit.block]}):
            assert found == pytest.approx(loss(model), rel=1e-12)


def test_every_unit_is_measured_unless_kinds_are_named():
    model = llama(intermediate_size=4, num_hidden_layers=1)
    (of_block,) = LeaveOneOut().score(model, IDS)
    sizes = {kind: len(score_U) for kind, score_U in of_block.items()}
    assert sizes == {"blocks": 1, "attention": 1, "ffn": 1, "head_groups": 2, "query_heads": 4, "channels": 4}
    (again,) = LeaveOneOut(kinds=("channels",)).score(model, IDS)
    assert again.keys() == {"channels"}
    assert torch.equal(again["channels"], of_block["channels"])


def test_blocks_run_as_before_also_after_a_failure():
    model = llama()
    own = model.model.layers[0].forward
    model.model.layers[0].forward = lambda *args, **kwargs: own(*args, **kwargs)
    replaced = model.model.layers[0].forward
    before = loss(model)
    down = model.model.layers[2].mlp.down_proj
    seen = []

    def fail(module, inputs):
        seen.append(inputs)
        if len(seen) > 3:
            raise RuntimeError("out of memory")

    hook = down.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        losses_without(model, IDS, [Unit(1, "blocks", 0)])
    hook.remove()
    assert model.model.layers[0].forward is replaced
    assert not any("forward" in vars(block) for block in model.model.layers[1:])
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert loss(model) == before


def test_bad_input_is_told():
    with pytest.raises(ValueError, match=r"^sample: block 3 given, valid is 0 to 2$"):
        losses_without(llama(), IDS, [Unit(3, "blocks", 0)])
    with pytest.raises(ValueError, match=r"^sample: unit 2 of the head_groups given, valid is 0 to 1$"):
        losses_without(llama(), IDS, [Unit(0, "head_groups", 2)])
    with pytest.raises(
        ValueError, match=r"^units: head_groups given, block 1 of this gpt_neox has channels, attention, ffn, the b"
    ):
        losses_without(gpt_neox(), IDS, [Unit(1, "head_groups", 0)])
    with pytest.raises(
        ValueError, match=r"^kinds: \('heads',\) given, valid are some of blocks, attention, ffn, head_gr"
    ):
        LeaveOneOut(kinds=("heads",))
    with pytest.raises(ValueError, match=r"^kinds: \(\) given"):
        LeaveOneOut(kinds=())
