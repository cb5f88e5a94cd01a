"""Which product is used where, and that it is said where nothing can be compiled."""

from contextlib import ExitStack

import pytest
import torch

from tasks.prune.activation.apply import sparse_inputs
from tasks.prune.activation.compiled_product import library
from tasks.prune.activation.fast import fast, measure_shape, readers_of
from tasks.prune.activation.product import gather_product
from tasks.prune.activation.products import PRODUCTS, product_for
from tasks.prune.activation.threshold import Threshold
from tests.cases import batches, llama
from tests.prune.activation.compilers import needs_compiler
from tests.prune.activation.test_fast import always, decoded
from tests.prune.activation.test_sparse_inputs import recipe

CPU = torch.device("cpu")
WARNING = r"^products: kept rows are gathered.*false ended with 1"


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.cache_clear()
    yield
    library.cache_clear()


@needs_compiler
def test_on_a_cpu_it_is_compiled_for_the_dtypes_that_it_reads():
    names = {dtype: product_for(CPU, dtype) for dtype in (torch.float32, torch.bfloat16, torch.float64)}
    assert [*names.values()] == ["compiled", "compiled", "gathered"]
    assert {*names.values()} <= {*PRODUCTS}


def test_where_nothing_is_compiled_rows_are_gathered_and_a_warning_says_why(no_compiler):
    model = llama()
    with sparse_inputs(model, recipe("50%", selection=Threshold()), batches()), ExitStack() as stack:
        masked = decoded(model)
        with pytest.warns(UserWarning, match=WARNING) as warned:
            decisions = stack.enter_context(fast(model, measure=always))
        assert len(warned) == 1  # not once for each of its inputs
        assert {source.fused.product for source in readers_of(model)} == {gather_product}
        torch.testing.assert_close(decoded(model), masked, rtol=1e-4, atol=1e-4)
    assert {shape.product for shape in decisions} == {"gathered"}
    for shape in decisions:
        assert min(measure_shape(shape, 0).sparse_ms) > 0


@needs_compiler
def test_what_was_decided_of_another_product_is_measured_anew(no_compiler, monkeypatch):
    model, asked = llama(), []

    def measured(shape, cold_bytes):
        asked.append(shape.product)
        return always(shape, cold_bytes)

    with sparse_inputs(model, recipe("50%"), batches()):
        with pytest.warns(UserWarning, match=WARNING), fast(model, measure=measured) as gathered:
            pass
        monkeypatch.undo()
        library.cache_clear()
        with fast(model, gathered, measure=measured) as compiled:
            pass
    assert asked == ["gathered"] * 4 + ["compiled"] * 4
    assert not {*gathered} & {*compiled}
