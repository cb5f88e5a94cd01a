"""The products for a CPU that read kept rows alone: against float64, for every number of tokens, threads and dtype."""

import itertools

import pytest
import torch

from tasks.prune.activation.compiled_product import compiled_product
from tasks.prune.activation.product import gather_product
from tests.prune.activation.compilers import needs_compiler

TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2**-7}  # of the sum of the magnitudes that are added
SHAPES = [(1, 1), (7, 3), (130, 65), (300, 2049)]  # (inputs, outputs): a tile, a chunk and a line, and odd


@pytest.fixture(params=[gather_product, pytest.param(compiled_product, marks=needs_compiler)])
def product(request):
    return request.param


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def drawn(tokens, inputs, outputs, dtype=torch.float32):
    generator = torch.Generator().manual_seed(tokens * inputs)
    x_TI, weight_IO = (torch.randn(*size, generator=generator) for size in ((tokens, inputs), (inputs, outputs)))
    return x_TI.to(dtype), weight_IO.to(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("least", [None, 0.6745, 100.0], ids=str)  # all are kept, about half, and none
def test_it_is_the_product_of_what_exceeds_the_threshold(product, threads, dtype, least):
    threshold = None if least is None else torch.tensor(least, dtype=dtype)
    for tokens, (inputs, outputs) in itertools.product((1, 3, 8), SHAPES):
        x_TI, weight_IO = drawn(tokens, inputs, outputs, dtype)
        made = product(x_TI, weight_IO, threshold)
        kept_TI = (x_TI * (x_TI.abs() > (0.0 if threshold is None else threshold))).double()
        error_TO = (made.double() - kept_TI @ weight_IO.double()).abs()
        assert (made.shape, made.dtype) == ((tokens, outputs), dtype)
        assert (error_TO <= TOLERANCE[dtype] * (kept_TI.abs() @ weight_IO.double().abs())).all()


def test_rows_that_are_not_kept_are_not_read(product, threads):
    weight_IO = torch.full((6, 12), torch.nan)
    weight_IO[2] = 3.0
    assert product(torch.tensor([[0, 0, 2.0, 0, 0, 0]]), weight_IO).eq(6).all()
    assert product(torch.tensor([[1, -1, 2.0, 0, 0, 1]]), weight_IO, torch.tensor(1.0)).eq(6).all()


def test_a_token_that_keeps_nothing_gives_zero(product, threads):
    x_TI = torch.zeros(3, 6)
    x_TI[1, 4] = 1.0
    assert torch.equal(product(x_TI, torch.ones(6, 12)), torch.tensor([0.0, 1, 0])[:, None].expand(3, 12))
    assert product(x_TI[:1], torch.ones(6, 12)).eq(0).all()


def test_an_input_that_is_not_a_number_is_seen(product, threads):
    x_TI = torch.tensor([[0.0, torch.nan, 2.0], [0.0, 1.0, 2.0]])
    assert product(x_TI, torch.ones(3, 5), torch.tensor(1.5)).isnan().tolist() == [[True] * 5, [False] * 5]


def test_the_token_may_lie_apart_in_memory(product):
    x_TI, weight_IO = drawn(2, 40, 9)
    apart_TI = torch.stack((x_TI, x_TI.neg()), dim=-1)[..., 0]
    assert not apart_TI.is_contiguous()
    assert torch.equal(product(apart_TI, weight_IO), product(x_TI, weight_IO))
