"""Sparse inputs in a whole model: biases kept, tokens alone, decode as prefill, nothing left behind."""

import pytest
import torch

from tasks.calibrate.distribution import InputDistribution
from tasks.model.anatomy import dissect
from tasks.prune import MITIGATIONS, SELECTIONS
from tasks.prune.activation.apply import install, sparse_inputs
from tasks.prune.activation.dpts import DynamicShift
from tasks.prune.activation.lpts import LearnedBias
from tasks.prune.activation.measure import input_rows, reading
from tasks.prune.activation.nm import Magnitude
from tasks.prune.activation.recipe import ActivationRecipe
from tasks.prune.activation.rsparse import LowRankRest
from tasks.prune.activation.scaling import Scaling
from tasks.prune.activation.sparse_input import SparseLinear
from tasks.prune.activation.spts import StaticShift
from tasks.prune.activation.threshold import Threshold
from tasks.prune.activation.topk import TopK
from tasks.prune.activation.var import Variance
from tasks.prune.weight.pattern import parse_pattern
from tests.cases import FAMILIES, VOCABULARY, batches, llama, qwen2

IDS = torch.randint(VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(7))


def recipe(pattern="2:4", *mitigations, **changes):
    pattern = parse_pattern(pattern)
    selection = changes.pop("selection", None) or (
        TopK() if pattern.__class__.__name__ == "Unstructured" else Magnitude()
    )
    return ActivationRecipe(selection=selection, pattern=pattern, mitigations=mitigations, **changes)


@torch.no_grad()
def logits(model, ids=IDS):
    return model(ids).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_within_the_model_is_sparse_and_then_its_own_again(family):
    model = FAMILIES[family]()
    before, state = logits(model), {name: value.clone() for name, value in model.state_dict().items()}
    with sparse_inputs(model, recipe("2:4"), batches()):
        assert any(isinstance(module, SparseLinear) for module in model.modules())
        assert (logits(model) - before).abs().max() > 1e-4
        assert {*state} <= {*model.state_dict()}
    assert torch.equal(logits(model), before)
    assert {*model.state_dict()} == {*state}


@pytest.mark.parametrize("pattern", ["4:4", "0%"])
def test_everything_kept_is_the_dense_model_bit_for_bit(pattern):
    model = llama()
    before = logits(model)
    with sparse_inputs(model, recipe(pattern, Variance()), batches()):
        assert torch.equal(logits(model), before)


def test_biases_are_kept():
    """Of a linear that reads nothing but zeros the bias is left, and Qwen2 has one on q, k and v."""
    model = qwen2()
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.q_proj.bias.normal_()
    with sparse_inputs(model, recipe("2:4", modules=("q_proj",)), batches()):
        q_proj = model.model.layers[0].self_attn.q_proj
        assert isinstance(q_proj, SparseLinear)
        with torch.no_grad():
            assert torch.equal(q_proj(torch.zeros(1, 2, 32))[0, 0], q_proj.bias)


@pytest.mark.parametrize("mitigations", [(), (Variance(),), (DynamicShift(),)], ids=str)
def test_a_sequence_does_not_depend_on_its_batch(mitigations):
    model = llama()
    with sparse_inputs(model, recipe("50%", *mitigations), batches()):
        alone = torch.cat([logits(model, row[None]) for row in IDS])
        torch.testing.assert_close(logits(model), alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "opt"])
def test_decode_equals_prefill(family):
    model = FAMILIES[family]()
    with sparse_inputs(model, recipe("2:4"), batches()):
        whole, cache, steps = logits(model), None, []
        for place in range(IDS.shape[1]):
            output = model(IDS[:, place : place + 1], past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_prompt_may_be_read_whole_and_decoding_is_sparse():
    model = llama()
    dense = logits(model)
    with sparse_inputs(model, recipe("2:4", prefill="dense"), batches()):
        assert torch.equal(logits(model), dense)
        assert (logits(model, IDS[:, :1]) - dense[:, :1]).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("family", ["opt", "llama"])
def test_what_a_prompt_is_does_not_depend_on_the_batch(family):
    """OPT's FFN gets the tokens of all sequences in a row, so while decoding one of each looks like a prompt."""
    model = FAMILIES[family]()
    with sparse_inputs(model, recipe("2:4", prefill="dense"), batches()):
        together = decoded_after_prompt(model, IDS)
        alone = torch.cat([decoded_after_prompt(model, row[None]) for row in IDS])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert not any(block._forward_pre_hooks for block in dissect(model).blocks)


def decoded_after_prompt(model, ids):
    cache = model(ids[:, :-1], use_cache=True).past_key_values
    return model(ids[:, -1:], past_key_values=cache).logits


def test_only_the_named_modules():
    model = llama()
    with sparse_inputs(model, recipe("2:4", modules=("down_proj", "self_attn.[qk]*")), batches()):
        names = {name.rpartition(".")[2] for name, each in model.named_modules() if isinstance(each, SparseLinear)}
    assert names == {"down_proj", "q_proj", "k_proj"}


def test_a_pattern_for_a_block_that_its_inputs_cannot_keep_is_refused():
    patterns = [parse_pattern("2:4"), parse_pattern("3:5"), parse_pattern("2:4")]
    with pytest.raises(ValueError, match=r"^pattern: 3:5 does not divide the 32 inputs of block 1, self_attn.q_proj"):
        install(llama(), recipe("2:4"), batches(), patterns)


def test_a_pattern_for_each_block():
    model = llama()
    patterns = [parse_pattern(text) for text in ("0%", "50%", "75%")]
    with sparse_inputs(model, recipe("50%"), batches(), patterns):
        sparse = [[type(each) is SparseLinear for each in dissect(model).linears(index).values()] for index in range(3)]
        assert not any(sparse[0])
        assert all(sparse[1])
        sources = [next(iter(block.sparse_inputs.values())) for block in list(model.model.layers)[1:]]
        assert [str(source.pattern) for source in sources] == ["50%", "75%"]


@pytest.mark.parametrize("mitigations", [(), (StaticShift(),), (DynamicShift(), Variance())], ids=str)
def test_a_threshold_drops_what_was_asked_in_the_whole_model(mitigations):
    """Of what it is compared with: an input less what stands in for it; the means of o_proj's are far from 0 here."""
    model = qwen2()
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.v_proj.bias += torch.linspace(-1, 1, 16)
    text = torch.randint(VOCABULARY, (600, 24), generator=torch.Generator().manual_seed(8)).split(300)
    how = recipe("60%", *mitigations, selection=Threshold())
    with sparse_inputs(model, how, text[:1]) as installed, reading(model) as readings:
        logits(model, text[1])
        rows = input_rows(installed, how, readings)
    assert [row.dropped for row in rows] == pytest.approx([0.6] * len(rows), abs=0.02)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: recipe("2:4", modules=("nothing",)), "^modules: 'nothing' given.*q_proj"),
        (lambda: recipe("3:5"), r"^pattern: 3:5 does not divide the 32 inputs of block 0, self_attn.q_proj"),
        (lambda: recipe("2:4", modules=()), "^modules: none given"),
        (lambda: recipe("2:4", prefill="later"), "^prefill: 'later' given"),
        (lambda: recipe("2:4", Variance(), Variance()), "^mitigation: Variance given 2 times"),
        (lambda: recipe("50%", Scaling(), selection=Threshold()), "^mitigation: a threshold"),
        (lambda: recipe("50%", LowRankRest(rank=16)), "^mitigation: rank: 16 given for 32 x 32, valid is 1 to 15"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(made, says):
    model = llama()
    before = logits(model)
    with pytest.raises(ValueError, match=says):
        install(model, made(), batches())
    assert torch.equal(logits(model), before)
    assert not any(isinstance(module, SparseLinear) for module in model.modules())


def test_a_saved_state_has_what_was_learned():
    model = llama()
    with sparse_inputs(model, recipe("2:4", LearnedBias(), modules=("down_proj",)), batches()):
        added = {*model.state_dict()} - {*llama().state_dict()}
    assert added == {f"model.layers.{index}.mlp.down_proj.prepared.0.delta" for index in range(3)}


@pytest.mark.parametrize("name", SELECTIONS | MITIGATIONS)
def test_what_says_that_it_looks_at_no_calibration_tokens_needs_none(name):
    """Otherwise a distribution that has seen nothing is asked, and refuses."""
    method, pattern = (SELECTIONS | MITIGATIONS)[name](), parse_pattern("2:4" if name == "nm" else "50%")
    unseen, weight_OI = InputDistribution(64, "cpu"), torch.randn(64, 64)
    asked = (weight_OI, unseen, pattern) if name in SELECTIONS else (weight_OI, unseen)
    if method.calibrates:
        with pytest.raises(ValueError, match="no tokens were observed"):
            method.prepare(*asked)
    else:
        assert {*method.prepare(*asked)} == {*method.needs}
