"""The distribution of inputs: quantiles against a sort, over many magnitudes, whatever the batching."""

import pytest
import torch

from tasks.calibrate.distribution import InputDistribution


def seen(*parts):
    stat = InputDistribution(parts[0].shape[1], "cpu")
    for x_TI in parts:
        stat.see(x_TI)
    return stat


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("magnitude", [1e-6, 1.0, 1e4])
def test_a_quantile_is_that_of_all_values_sorted(share, magnitude):
    x_TI = magnitude * torch.randn(3000, 40, generator=torch.Generator().manual_seed(0))
    expected = x_TI.double().abs().flatten().quantile(share).item()
    assert seen(x_TI).quantile(share) == pytest.approx(expected, rel=3e-3)


def test_mean_and_peak_of_each_input_whatever_the_batching():
    x_TI = torch.randn(101, 8, generator=torch.Generator().manual_seed(1))
    whole, parts = seen(x_TI), seen(*x_TI.split(7))
    torch.testing.assert_close(whole.mean_I(), x_TI.double().mean(0))
    assert torch.equal(whole.peak_I(), x_TI.abs().amax(0))
    assert torch.equal(whole.peak_I(), parts.peak_I())
    torch.testing.assert_close(whole.mean_I(), parts.mean_I())
    assert whole.quantile(0.3) == parts.quantile(0.3)


def test_zeros_have_a_place_below_everything():
    stat = seen(torch.cat([torch.zeros(60, 4), torch.ones(40, 4)]))
    assert stat.quantile(0.5) < 1e-30
    assert stat.quantile(0.7) == pytest.approx(1.0, rel=2e-3)


def test_reordered_inputs():
    x_TI = torch.randn(20, 6, generator=torch.Generator().manual_seed(2))
    order_I = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    stat, other = seen(x_TI).reordered(order_I), seen(x_TI[:, order_I])
    assert torch.equal(stat.mean_I(), other.mean_I())
    assert torch.equal(stat.peak_I(), other.peak_I())


def test_bad_shares_and_no_tokens_are_refused():
    with pytest.raises(ValueError, match=r"^share: 1.5 given"):
        seen(torch.ones(1, 2)).quantile(1.5)
    with pytest.raises(ValueError, match="no tokens"):
        InputDistribution(2, "cpu").quantile(0.5)
