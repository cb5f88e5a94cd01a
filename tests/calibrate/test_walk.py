import itertools

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, FalconConfig, FalconForCausalLM

from tasks.calibrate.calls import record_calls
from tasks.calibrate.walk import Walk, check_walk, placed
from tasks.model.anatomy import dissect
from tests.cases import FAMILIES, SLIDING, WINDOW, batches, gemma3, llama, mistral

SHAPE = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}


def bloom():
    torch.manual_seed(0)
    return BloomForCausalLM(BloomConfig(**SHAPE)).eval()


def falcon():
    torch.manual_seed(0)
    return FalconForCausalLM(FalconConfig(**SHAPE, new_decoder_architecture=False)).eval()


def walked(model, shapes):
    """The hidden states before each block and behind the last, per batch."""
    anatomy = dissect(model)
    walk = Walk(model, anatomy, batches(*shapes))
    states = [list(walk.hidden)]
    for index in range(len(anatomy.blocks)):
        states.append(list(walk.step(index)))
    return list(zip(*states, strict=True))


def behind_the_last(model, hidden_BTD):
    """What the model does to the hidden states after its blocks."""
    inner = getattr(model.base_model, "decoder", model.base_model)
    for name in ("norm", "final_layer_norm", "ln_f", "project_out"):
        if getattr(inner, name, None) is not None:
            hidden_BTD = getattr(inner, name)(hidden_BTD)
    return hidden_BTD


@torch.no_grad()
@pytest.mark.parametrize("make", [*FAMILIES.values(), bloom, falcon])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_walk_gives_the_models_own_hidden_states(make, dtype):
    model, shapes = make().to(dtype), [(2, WINDOW), (1, WINDOW), (3, 5)]
    for ids_BT, states in zip(batches(*shapes), walked(model, shapes), strict=True):
        own = model(ids_BT, output_hidden_states=True).hidden_states
        assert len(own) == len(states)
        for own_BTD, walked_BTD in zip(own[:-1], states, strict=False):  # the model's last one is behind its norm
            torch.testing.assert_close(walked_BTD, own_BTD)
        torch.testing.assert_close(behind_the_last(model, states[-1]), own[-1])


@torch.no_grad()
@pytest.mark.parametrize("make", [*FAMILIES.values(), bloom, falcon])
def test_the_check_passes_for_every_family(make):
    model = make()
    check_walk(model, dissect(model), batches()[0])


def test_the_check_names_the_block_that_behaves_otherwise_alone():
    model, count = llama(), itertools.count(1)
    model.model.layers[2].register_forward_pre_hook(lambda block, inputs: (inputs[0] * next(count),))
    with pytest.raises(ValueError, match=r"walking LlamaForCausalLM block by block .* at block 2"):
        check_walk(model, dissect(model), batches()[0])


def test_recording_runs_no_block_and_leaves_no_trace():
    model = llama()
    anatomy, ran = dissect(model), []
    handles = [module.register_forward_hook(lambda *_: ran.append(1)) for module in anatomy.linears(0).values()]
    before = [dict(vars(block)) for block in anatomy.blocks]
    hidden, calls = zip(*record_calls(model, anatomy, batches()), strict=True)
    assert not ran
    assert [dict(vars(block)) for block in anatomy.blocks] == before
    assert [len(calls_of_batch) for calls_of_batch in calls] == [len(anatomy.blocks)] * 2
    assert [tuple(hidden_BTD.shape) for hidden_BTD in hidden] == [(3, WINDOW, 32), (2, WINDOW, 32)]
    for handle in handles:
        handle.remove()


def test_the_blocks_own_forward_is_back_even_after_a_failure():
    model = llama()
    anatomy = dissect(model)
    own = anatomy.blocks[1].forward
    anatomy.blocks[1].forward = lambda *args, **kwargs: own(*args, **kwargs)
    replaced = anatomy.blocks[1].forward
    with pytest.raises(IndexError):
        next(record_calls(model, anatomy, [torch.full((1, 4), 10_000)]))
    assert anatomy.blocks[1].forward is replaced
    assert "forward" not in vars(anatomy.blocks[0])


def test_blocks_of_different_attention_get_different_masks_and_equal_ones_are_kept_once():
    model = gemma3()
    shapes = (2, WINDOW), (2, WINDOW), (2, SLIDING // 2)
    calls = [calls for _, calls in record_calls(model, dissect(model), batches(*shapes))]
    masks = [[call.kwargs["attention_mask"] for call in calls_of_batch] for calls_of_batch in calls]
    assert masks[0][0] is masks[0][2]
    assert masks[0][0] is not masks[0][1]
    assert all(one is other for one, other in zip(masks[0], masks[1], strict=True))
    cosines = [[call.kwargs["position_embeddings"][0] for call in calls_of_batch] for calls_of_batch in calls]
    assert cosines[0][0] is cosines[1][2]
    assert cosines[2][0].shape[1] == SLIDING // 2


def test_a_sliding_window_is_seen():
    """Within one block the first token reaches the last one only where the window does not slide."""
    last = []
    for model in (mistral(), mistral(sliding_window=None)):
        states = walked(model, [(1, WINDOW)])
        last.append(states[0][1][0, -1])
    assert not torch.allclose(*last)


def test_hidden_states_wait_on_the_cpu_and_are_replaced_by_a_step():
    model = llama()
    walk = Walk(model, dissect(model), batches())
    first = list(walk.hidden)
    outputs = [walk.output(0, batch) for batch in range(2)]
    assert all(torch.equal(now, then) for now, then in zip(walk.hidden, first, strict=True))
    for output_BTD, stepped_BTD in zip(outputs, walk.step(0), strict=True):
        assert torch.equal(output_BTD, stepped_BTD)
    assert all(torch.equal(now, output) for now, output in zip(walk.hidden, outputs, strict=True))


def test_a_block_comes_back_to_its_device():
    block = llama().model.layers[0]
    parameters = list(block.parameters())
    with placed(block, torch.device("cpu")):
        pass
    assert all(now is then for now, then in zip(block.parameters(), parameters, strict=True))
