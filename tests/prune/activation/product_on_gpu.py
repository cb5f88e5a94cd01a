"""The product for a GPU against float64, on CUDA or, interpreted, on a CPU: run by test_triton_product.py."""

import pytest
import torch

from tasks.prune.activation import fast as module
from tasks.prune.activation.apply import sparse_inputs
from tasks.prune.activation.dpts import DynamicShift
from tasks.prune.activation.fast import fast, readers_of
from tasks.prune.activation.threshold import Threshold
from tasks.prune.activation.triton_product import TILE_I, TILE_O, row_product
from tasks.prune.weight.pattern import Unstructured
from tests.cases import FAMILIES, batches
from tests.prune.activation.test_fast import IDS, always, decoded
from tests.prune.activation.test_sparse_inputs import recipe

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2**-7}  # of the sum of the magnitudes that are added
SHAPES = [(2 * TILE_I, TILE_O), (7, 3), (TILE_I + 1, TILE_O + 1), (9 * TILE_I - 5, 2 * TILE_O - 1)]


def drawn(inputs, outputs, dtype, tokens=1):
    generator = torch.Generator().manual_seed(inputs)
    x_TI, weight_IO = (torch.randn(*size, generator=generator) for size in ((tokens, inputs), (inputs, outputs)))
    return x_TI.to(DEVICE, dtype), weight_IO.to(DEVICE, dtype)


def scalar(value, dtype):
    return torch.tensor(value, dtype=dtype, device=DEVICE)


@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("threshold", [None, 0.6745], ids=str)  # all of them, and about half
def test_it_is_the_product_of_what_exceeds_the_threshold(inputs, outputs, dtype, threshold):
    x_TI, weight_IO = drawn(inputs, outputs, dtype)
    made = row_product(x_TI, weight_IO, None if threshold is None else scalar(threshold, dtype))
    kept_TI = (x_TI * (x_TI.abs() > scalar(threshold or 0.0, dtype))).double()
    error_TO = (made.double() - kept_TI @ weight_IO.double()).abs()
    assert (made.shape, made.dtype) == ((1, outputs), dtype)
    assert (error_TO <= TOLERANCE[dtype] * (kept_TI.abs() @ weight_IO.double().abs())).all()


def test_a_token_that_keeps_nothing_gives_zero():
    x_TI, weight_IO = drawn(50, 40, torch.float32)
    assert row_product(x_TI, weight_IO, scalar(100.0, torch.float32)).eq(0).all()


@pytest.mark.parametrize("threshold", [None, 0.5], ids=str)
def test_an_input_that_is_no_number_is_seen(threshold):
    x_TI, weight_IO = drawn(50, 40, torch.float32)
    x_TI[0, 7] = torch.nan
    made = row_product(x_TI, weight_IO, None if threshold is None else scalar(threshold, torch.float32))
    assert made.isnan().all()


def test_rows_that_are_not_kept_are_not_read():
    x_TI, weight_IO = drawn(40, 20, torch.float32)
    keep_I = x_TI[0].abs() > 1
    expected = row_product(x_TI, weight_IO, scalar(1.0, torch.float32))
    weight_IO[~keep_I] = torch.nan
    assert torch.equal(row_product(x_TI, weight_IO, scalar(1.0, torch.float32)), expected)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_it_keeps_what_the_selection_keeps_to_the_bit(dtype):
    """In bfloat16 the threshold is rounded as the token is, so that inputs which equal it fall on the same side."""
    x_TI, weight_IO = drawn(400, 8, dtype)
    threshold = x_TI.abs().float().median() * 1.0001
    keep_TI = Threshold().keep(x_TI, Unstructured(0.5), {"threshold": threshold})
    assert torch.equal(row_product(x_TI, weight_IO, threshold.to(dtype)), row_product(x_TI * keep_TI, weight_IO))


def test_the_same_token_gives_the_same_bits_alone_and_among_others():
    x_TI, weight_IO = drawn(100, 150, torch.float32, tokens=3)
    assert torch.equal(row_product(x_TI, weight_IO)[1], row_product(x_TI[1:2], weight_IO)[0])


def test_a_weight_that_is_not_laid_out_in_rows_is_refused():
    x_TI, weight_IO = drawn(16, 16, torch.float32)
    with pytest.raises(ValueError, match=r"^weight: its rows do not lie one after the other"):
        row_product(x_TI, weight_IO.T)


@pytest.mark.parametrize("family", ["qwen2", "opt"])  # which have biases
@pytest.mark.parametrize("mitigations", [(), (DynamicShift(),)], ids=str)
def test_a_model_decodes_as_the_masked_one(family, mitigations, monkeypatch):
    monkeypatch.setattr(module, "product_for", lambda device, dtype: "triton")  # on a CPU too, interpreted
    model = FAMILIES[family]().to(DEVICE)
    text = [each.to(DEVICE) for each in batches()]
    ids = IDS[:, :2].to(DEVICE)
    with sparse_inputs(model, recipe("50%", *mitigations, selection=Threshold()), text):
        masked = decoded(model, ids)
        with fast(model, measure=always):
            assert {source.fused.product for source in readers_of(model)} == {row_product}
            assert all((source.fused.threshold is None) == bool(mitigations) for source in readers_of(model))
            torch.testing.assert_close(decoded(model, ids), masked, rtol=1e-4, atol=1e-4)
