"""Fast decoding: the same numbers as the masked model, in no more memory, dense where it would lose."""

import pytest
import torch

from tasks.prune.activation.apply import sparse_inputs
from tasks.prune.activation.dpts import DynamicShift
from tasks.prune.activation.fast import TOKENS, Decision, Shape, fast, measure_shape, readers_of
from tasks.prune.activation.lpts import LearnedBias
from tasks.prune.activation.rsparse import LowRankRest
from tasks.prune.activation.scaling import Scaling
from tasks.prune.activation.sparse_input import SparseLinear
from tasks.prune.activation.spts import StaticShift
from tasks.prune.activation.var import Variance
from tests.cases import FAMILIES, VOCABULARY, batches, llama
from tests.prune.activation.test_sparse_inputs import recipe

IDS = torch.randint(VOCABULARY, (1, 6), generator=torch.Generator().manual_seed(7))


def always(shape, cold_bytes):
    return Decision(shape=shape, dense_ms=(2.0,) * len(TOKENS), sparse_ms=(1.0,) * len(TOKENS))


def never(shape, cold_bytes):
    return Decision(shape=shape, dense_ms=(1.0,) * len(TOKENS), sparse_ms=(1.0,) * len(TOKENS))


@torch.no_grad()
def decoded(model, ids=IDS):
    cache, steps = None, []
    for place in range(ids.shape[1]):
        output = model(ids[:, place : place + 1], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        steps.append(output.logits)
    return torch.cat(steps, dim=1)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "opt", "gpt_neox"])
def test_it_decodes_as_the_masked_model(family):
    model = FAMILIES[family]()
    with sparse_inputs(model, recipe("50%"), batches()):
        masked = decoded(model)
        with fast(model, measure=always):
            torch.testing.assert_close(decoded(model), masked, rtol=1e-4, atol=1e-4)
        assert torch.equal(decoded(model), masked)


@pytest.mark.parametrize(
    "mitigation", [Variance(), DynamicShift(), StaticShift(), Scaling(), LearnedBias(), LowRankRest(rank=2)], ids=str
)
def test_with_every_kind_of_mitigation(mitigation):
    model = llama()
    with sparse_inputs(model, recipe("2:4", mitigation), batches()):
        masked = decoded(model)
        with fast(model, measure=always):
            torch.testing.assert_close(decoded(model), masked, rtol=1e-4, atol=1e-4)


def test_weights_are_views_of_what_is_read_and_take_no_memory_of_their_own():
    model = llama()
    with sparse_inputs(model, recipe("50%"), batches()), fast(model, measure=always):
        for source, readers in readers_of(model).items():
            table = source.fused.weight_IO.untyped_storage().data_ptr()
            assert {each.weight.untyped_storage().data_ptr() for each in readers} == {table}


def test_afterwards_the_weights_lie_as_before():
    model = llama()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with sparse_inputs(model, recipe("50%"), batches()), fast(model, measure=always):
        pass
    for name, value in model.state_dict().items():
        assert value.is_contiguous()
        assert torch.equal(value, before[name])


def test_where_it_would_lose_the_product_is_dense():
    model = llama()
    with sparse_inputs(model, recipe("50%"), batches()):
        masked = decoded(model)
        with fast(model, measure=never) as decisions:
            assert all(each.most_tokens == 0 for each in decisions.values())
            assert torch.equal(decoded(model), masked)


def test_a_long_prompt_is_a_dense_product_of_masked_inputs():
    model = llama()
    long = torch.randint(VOCABULARY, (1, 20), generator=torch.Generator().manual_seed(8))
    with sparse_inputs(model, recipe("50%"), batches()), torch.no_grad():
        masked = model(long).logits
        with fast(model, measure=always):
            torch.testing.assert_close(model(long).logits, masked, rtol=1e-5, atol=1e-5)


def test_what_is_known_is_not_measured_again():
    model = llama()
    with sparse_inputs(model, recipe("50%"), batches()):
        with fast(model, measure=always) as decisions:
            pass

        def refuse(shape, cold_bytes):
            raise AssertionError

        with fast(model, decisions, measure=refuse) as again:
            assert again == decisions
    assert len(decisions) == 4  # q/k/v, o, gate/up and down have shapes of their own


def test_up_to_how_many_tokens_it_wins():
    shape = Shape(inputs=8, outputs=8, dropped=0.5, dtype="float32", threads=1)
    assert TOKENS == (1, 2, 4, 8)
    assert Decision(shape=shape, dense_ms=(2, 2, 2, 2), sparse_ms=(1, 1.9, 2, 1)).most_tokens == 2
    assert Decision(shape=shape, dense_ms=(1, 2, 2, 2), sparse_ms=(1, 1, 1, 1)).most_tokens == 0


def test_a_shape_is_really_measured():
    shape = Shape(inputs=64, outputs=32, dropped=0.5, dtype="float32", threads=torch.get_num_threads())
    made = measure_shape(shape, 1 << 16)
    assert len(made.dense_ms) == len(made.sparse_ms) == len(TOKENS)
    assert all(each > 0 for each in made.dense_ms + made.sparse_ms)


def test_a_dense_model_is_refused():
    with pytest.raises(ValueError, match="reads no sparse inputs"), fast(llama()):
        pass
    assert not any(isinstance(module, SparseLinear) for module in llama().modules())


def test_a_model_that_is_neither_on_a_cpu_nor_on_cuda_is_refused():
    model = llama()
    with sparse_inputs(model, recipe("50%"), batches()):
        model.to("meta")
        with pytest.raises(ValueError, match=r"^device: "), fast(model, measure=always):
            pass
