"""The product that reads kept rows alone: against float64, for every number of tokens, threads and dtype."""

import pytest
import torch

from tasks.prune.activation.product import gather_product


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("tokens", [1, 2, 8])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("outputs", [12, 31])
def test_it_is_the_product_in_float64(threads, tokens, dtype, tolerance, outputs):
    generator = torch.Generator().manual_seed(tokens)
    keep_TI = torch.rand(tokens, 64, generator=generator) < 0.4
    kept_TI = (torch.randn(tokens, 64, generator=generator) * keep_TI).to(dtype)
    weight_IO = torch.randn(64, outputs, generator=generator).to(dtype)
    made = gather_product(kept_TI, keep_TI, weight_IO)
    assert made.dtype == dtype
    expected = kept_TI.double() @ weight_IO.double()
    torch.testing.assert_close(made.double(), expected, rtol=tolerance, atol=tolerance * 8)


def test_rows_that_are_not_kept_are_not_read(threads):
    weight_IO = torch.full((6, 12), torch.nan)
    weight_IO[2] = 3.0
    keep_TI = torch.tensor([[False, False, True, False, False, False]])
    assert gather_product(torch.tensor([[0, 0, 2.0, 0, 0, 0]]), keep_TI, weight_IO).eq(6).all()


def test_a_token_that_keeps_nothing_gives_zero(threads):
    keep_TI = torch.zeros(3, 6, dtype=torch.bool)
    keep_TI[1, 4] = True
    made = gather_product(torch.ones(3, 6) * keep_TI, keep_TI, torch.ones(6, 12))
    assert torch.equal(made, torch.tensor([0.0, 1, 0])[:, None].expand(3, 12))
    assert gather_product(torch.zeros(1, 6), keep_TI[:1], torch.ones(6, 12)).eq(0).all()
