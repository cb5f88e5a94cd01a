import pytest
import torch

from tasks.calibrate.importance.moments import InputMoments


def seen(x_TI, split):
    stat = InputMoments(x_TI.shape[1], "cpu")
    for part_TI in x_TI.split(split):
        stat.update(part_TI)
    return stat


def inputs(dtype=torch.float32):
    return torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("split", [1, 7, 50])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_moments_are_those_of_all_tokens(dtype, split):
    x_TI = inputs(dtype)
    stat, exact_TI = seen(x_TI, split), x_TI.double()
    torch.testing.assert_close(stat.variance_I(), exact_TI.var(0), rtol=1e-6, atol=0)
    torch.testing.assert_close(stat.size_I(), exact_TI.abs().mean(0), rtol=1e-6, atol=0)
    torch.testing.assert_close(stat.norm_I(), exact_TI.norm(dim=0), rtol=1e-6, atol=0)


def test_a_large_input_that_hardly_varies_keeps_its_variance():
    x_TI = (1000 + inputs().double() / 100).float()
    torch.testing.assert_close(seen(x_TI, 7).variance_I(), x_TI.double().var(0), rtol=1e-5, atol=0)
    constant_TI = torch.full((50, 8), 1234.567)
    assert seen(constant_TI, 7).variance_I().max() < 1e-6


def test_inputs_may_be_reordered():
    order_I = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
    other, direct = seen(inputs(), 7).reordered(order_I), seen(inputs()[:, order_I], 7)
    for read in (InputMoments.variance_I, InputMoments.size_I, InputMoments.norm_I):
        assert torch.equal(read(other), read(direct))
    other.update(inputs()[:, order_I] + 1)
    assert not torch.equal(other.variance_I(), direct.variance_I())


def test_too_few_tokens_and_infinity_are_told():
    with pytest.raises(ValueError, match="no tokens were observed"):
        InputMoments(8, "cpu").variance_I()
    with pytest.raises(ValueError, match="one token was observed, a variance needs two"):
        seen(inputs()[:1], 1).variance_I()
    for read in (InputMoments.variance_I, InputMoments.size_I):
        with pytest.raises(ValueError, match="NaN or infinity in the inputs"):
            read(seen(torch.full((3, 8), torch.inf), 1))
