"""What stands in for dropped inputs: numbers worked by hand, and each formula written out in float64."""

import pytest
import torch
from torch import nn

from tasks.calibrate.distribution import InputDistribution
from tasks.prune.activation.dpts import DynamicShift
from tasks.prune.activation.lpts import LearnedBias
from tasks.prune.activation.ls import LearnedScale
from tasks.prune.activation.nm import Magnitude
from tasks.prune.activation.rsparse import LowRankRest
from tasks.prune.activation.scaling import Scaling
from tasks.prune.activation.sparse_input import SparseInput, SparseLinear, learned, split_mitigations
from tasks.prune.activation.spts import StaticShift
from tasks.prune.activation.topk import TopK
from tasks.prune.activation.var import Variance
from tasks.prune.weight.pattern import parse_pattern

FIRST = [0.1, -0.9, 0.5, 0.4, 2, -3, 0.2, -0.1]
SECOND = [1.2, 1, 0.8, 1.1, -0.3, 0.25, 0.2, 0.05]
EVERY = [Variance(), DynamicShift(), DynamicShift(centre="median"), StaticShift(), LearnedBias(), LearnedScale()]
EVERY += [Scaling(), LowRankRest(rank=2)]


def sparse(linear, mitigations, pattern="2:4", selection=None, stat=None):
    if stat is None:
        stat = InputDistribution(linear.in_features, "cpu")
        stat.see(torch.randn(64, linear.in_features, generator=torch.Generator().manual_seed(9)) + 0.3)
    on_input, on_output = split_mitigations(mitigations)
    pattern = parse_pattern(pattern)
    selection = selection or Magnitude()
    weight_OI = linear.weight.detach()
    facts = selection.prepare(weight_OI, stat, pattern)
    first, second = ([each.prepare(weight_OI, stat) for each in kind] for kind in (on_input, on_output))
    return SparseLinear(linear, SparseInput(selection, pattern, facts, on_input, first, 1), on_output, second)


def identity(size=8):
    linear = nn.Linear(size, size, bias=False)
    linear.weight.data = torch.eye(size)
    return linear


def dense(seed=0, inputs=16, outputs=12, bias=True):
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, bias=bias)


@torch.no_grad()
def read_of(tokens, *mitigations):
    """What an identity reads, and so gives."""
    return sparse(identity(), mitigations)(torch.tensor(tokens)[None])[0]


@pytest.mark.parametrize(("token", "stretch"), [(FIRST, 1.013838), (SECOND, 1.000936)])
def test_var_by_hand(token, stretch):
    plain = read_of(token)
    torch.testing.assert_close(read_of(token, Variance()), stretch * plain, rtol=1e-6, atol=1e-6)


def test_the_mean_of_a_token_stands_in_for_what_it_drops():
    expected = torch.tensor([1.2, 0.5375, 0.5375, 1.1, -0.3, 0.5375, 0.5375, 0.05])
    torch.testing.assert_close(read_of(SECOND, DynamicShift()), expected, rtol=1e-6, atol=1e-6)


def test_the_median_of_a_token_stands_in_for_what_it_drops():
    token = [5.0, 1, 1, 1, 1, 1, 9, 1]
    torch.testing.assert_close(read_of(token, DynamicShift(centre="median")), torch.tensor(token))


def test_a_learned_shift_starts_as_the_mean_and_its_product_is_a_bias():
    linear = dense()
    stat = InputDistribution(16, "cpu")
    stat.see(calibration := torch.randn(50, 16, generator=torch.Generator().manual_seed(1)) + 1)
    module = sparse(linear, [StaticShift()], stat=stat)
    eta_I = calibration.double().mean(0)
    x_TI = torch.randn(5, 16, generator=torch.Generator().manual_seed(2))
    keep_TI = parse_pattern("2:4").keep((x_TI - eta_I.float()).abs())
    weight_OI, bias_O = linear.weight.double(), linear.bias.double()
    expected = ((x_TI.double() - eta_I) * keep_TI) @ weight_OI.T + (weight_OI @ eta_I) + bias_O
    torch.testing.assert_close(module(x_TI).double(), expected, rtol=1e-5, atol=1e-5)


def test_scaling_changes_the_choice_and_not_the_product():
    linear = dense(bias=False)
    stat = InputDistribution(16, "cpu")
    stat.see(torch.randn(50, 16, generator=torch.Generator().manual_seed(3)) * torch.linspace(0.1, 5, 16))
    x_TI = torch.randn(6, 16, generator=torch.Generator().manual_seed(4))
    scale_I = (stat.peak_I().double() / linear.weight.double().abs().amax(0)).sqrt()
    keep_TI = parse_pattern("2:4").keep((x_TI / scale_I).abs())
    folded_OI = linear.weight.double() * scale_I
    expected = (x_TI / scale_I * keep_TI) @ folded_OI.T
    with torch.no_grad():
        torch.testing.assert_close(
            sparse(linear, [Scaling()], stat=stat)(x_TI).double(), expected, rtol=1e-5, atol=1e-5
        )


def test_scaled_scores_are_compared_in_float32():
    scale_I = 1 + torch.arange(16) / 1024  # too fine for bfloat16
    source = SparseInput(TopK(), parse_pattern("50%"), {}, [Scaling()], [{"inverse": scale_I}], 1)
    keep_TI = source.choose(torch.ones(1, 16, dtype=torch.bfloat16)).keep_TI
    assert keep_TI.tolist() == [[False] * 8 + [True] * 8]


def test_low_rank_of_full_rank_would_give_back_the_dense_product():
    """W of rank 3 is held whole by factors of rank 3, so nothing is lost by what is dropped."""
    linear = dense()
    left, right = torch.randn(12, 3), torch.randn(3, 16)
    linear.weight.data = left @ right
    x_TI = torch.randn(7, 16)
    with torch.no_grad():
        torch.testing.assert_close(sparse(linear, [LowRankRest(rank=3)])(x_TI), linear(x_TI), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_bias_and_scale_of_the_output():
    linear = dense()
    module = sparse(linear, [LearnedScale(), LearnedBias()])
    scale, bias = learned(module).values()
    scale.copy_(torch.linspace(0.5, 2, 12))
    bias.copy_(torch.linspace(-1, 1, 12))
    x_TI = torch.randn(4, 16)
    plain = sparse(linear, [])(x_TI) - linear.bias
    torch.testing.assert_close(module(x_TI), plain * scale + bias + linear.bias)


@torch.no_grad()
@pytest.mark.parametrize("mitigation", EVERY, ids=str)
def test_every_mitigation_changes_the_output_once_it_has_learned(mitigation):
    linear = dense()
    x_TI = torch.randn(5, 16, generator=torch.Generator().manual_seed(5)) + 0.5
    module = sparse(linear, [mitigation])
    for parameter in learned(module).values():
        parameter.add_(0.1)
    assert (module(x_TI) - sparse(linear, [])(x_TI)).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize(
    "mitigations", [(each,) for each in EVERY] + [(Variance(), DynamicShift(), LearnedBias())], ids=str
)
def test_a_token_does_not_depend_on_its_batch(mitigations):
    module = sparse(dense(), mitigations)
    x_TI = torch.randn(6, 16, generator=torch.Generator().manual_seed(6))
    alone = torch.cat([module(x_I[None]) for x_I in x_TI])
    torch.testing.assert_close(module(x_TI), alone, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(module(x_TI.view(2, 3, 16)).view(6, -1), alone, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_a_token_of_equal_inputs_is_not_divided_by_zero():
    assert read_of([1.0] * 8, Variance()).isfinite().all()
    assert read_of([0.0] * 8, Variance()).eq(0).all()


@torch.no_grad()
def test_linears_of_one_input_choose_once():
    calls = []

    class Counted(TopK):
        def keep(self, x_TI, pattern, facts):
            calls.append(len(x_TI))
            return super().keep(x_TI, pattern, facts)

    first, second = dense(0), dense(1)
    source = SparseInput(Counted(), parse_pattern("50%"), {}, (), (), 2)
    x_TI, other = torch.randn(3, 16), torch.randn(3, 16)
    for x in (x_TI, other):
        together = [SparseLinear(each, source, (), ())(x) for each in (first, second)]
        keep_TI = parse_pattern("50%").keep(x.abs())
        for made, each in zip(together, (first, second), strict=True):
            torch.testing.assert_close(made, each(x * keep_TI))
    assert calls == [3, 3]
    assert source._last is None


def test_a_rank_that_saves_nothing_is_refused():
    with pytest.raises(ValueError, match="rank: 7 given for 12 x 16, valid is 1 to 6"):
        sparse(dense(), [LowRankRest(rank=7)])
