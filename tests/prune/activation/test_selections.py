"""What each selection keeps: numbers worked by hand, each token alone, the asked share met on new and skewed data."""

import math

import pytest
import torch

from tasks.calibrate.distribution import InputDistribution
from tasks.prune.activation.amber import Amber
from tasks.prune.activation.clact import CLACT
from tasks.prune.activation.nm import Magnitude
from tasks.prune.activation.threshold import Threshold
from tasks.prune.activation.topk import TopK
from tasks.prune.activation.weight_variance import WeightVariance
from tasks.prune.weight.pattern import NM, parse_pattern

FIRST = [0.1, -0.9, 0.5, 0.4, 2, -3, 0.2, -0.1]
SECOND = [1.2, 1, 0.8, 1.1, -0.3, 0.25, 0.2, 0.05]
EVERY = [TopK(), Magnitude(), CLACT(), Amber(), WeightVariance(), Threshold()]


def tokens(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def seen(x_TI):
    stat = InputDistribution(x_TI.shape[1], "cpu")
    stat.see(x_TI)
    return stat


def kept(selection, x_TI, pattern, weight_OI=None, stat=None):
    weight_OI = torch.eye(x_TI.shape[1]) if weight_OI is None else weight_OI
    pattern = parse_pattern(pattern)
    facts = selection.prepare(weight_OI, stat or seen(x_TI), pattern)
    return x_TI * selection.keep(x_TI, pattern, facts)


def pattern_of(selection):
    return "2:4" if isinstance(selection, Magnitude) else "50%"


def test_two_of_four_by_magnitude():
    expected = tokens([0, -0.9, 0.5, 0, 2, -3, 0, 0], [1.2, 0, 0, 1.1, -0.3, 0.25, 0, 0])
    assert torch.equal(kept(Magnitude(), tokens(FIRST, SECOND), "2:4"), expected)


def test_top_half_of_a_token():
    expected = tokens([0, -0.9, 0.5, 0, 2, -3, 0, 0], [1.2, 1, 0.8, 1.1, 0, 0, 0, 0])
    assert torch.equal(kept(TopK(), tokens(FIRST, SECOND), "50%"), expected)


def test_clact_weighs_by_the_calibration_tokens_and_not_by_the_batch():
    stat = seen(tokens([1, 10, 1, 1], [1, 10, 1, 1]))
    assert torch.equal(kept(CLACT(), tokens([3, 0.5, 2, 1]), "50%", stat=stat), tokens([3, 0.5, 0, 0]))


def test_weight_variance_weighs_by_the_spread_of_a_column():
    weight_OI = torch.tensor([[1.0, 5, 0, 1], [1, -5, 2, 1]])  # variances 0, 50, 2, 0
    assert torch.equal(kept(WeightVariance(), tokens([9, 0.1, 1, 9]), "50%", weight_OI), tokens([0, 0.1, 1, 0]))


def test_amber_is_not_led_by_one_outlying_weight():
    generator = torch.Generator().manual_seed(0)
    weight_OI = torch.randn(400, 4, generator=generator)
    weight_OI[:, 1] *= 1.5
    weight_OI[0, 2] = 1000.0
    factor_I = Amber().factor(weight_OI, seen(torch.ones(1, 4)))
    assert factor_I.argmax() == 1
    assert factor_I[2].item() == pytest.approx(factor_I[0].item(), rel=0.2)


def test_amber_by_the_formula_in_float64():
    weight_OI = torch.randn(300, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = sorted(weight_OI.flatten().tolist())
    low, high = (values[round(share * (len(values) - 1))] for share in (0.005, 0.995))
    inside = [value for value in values if low <= value <= high]
    mean = math.fsum(inside) / len(inside)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in inside) / (len(inside) - 1))
    columns = [[(min(max(value, low), high) - mean) / spread for value in column] for column in weight_OI.T.tolist()]
    expected = [math.sqrt(math.fsum(value * value for value in column)) for column in columns]
    assert Amber().factor(weight_OI.float(), seen(torch.ones(1, 5))).tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("pattern", "energy"), [("2:4", 0.868), ("4:8", 0.897), ("8:16", 0.913), ("16:32", 0.921)])
def test_energy_kept_of_a_normal_input_by_n_of_m(pattern, energy):
    x_TI = torch.randn(2000, 256, generator=torch.Generator().manual_seed(0))
    assert share_of_energy(kept(Magnitude(), x_TI, pattern), x_TI) == pytest.approx(energy, abs=0.003)


def test_energy_kept_of_a_normal_input_by_half_of_it():
    x_TI = torch.randn(2000, 256, generator=torch.Generator().manual_seed(0))
    assert share_of_energy(kept(TopK(), x_TI, "50%"), x_TI) == pytest.approx(0.929, abs=0.003)


def share_of_energy(kept_TI, x_TI):
    return (kept_TI.square().sum() / x_TI.square().sum()).item()


@pytest.mark.parametrize("share", [20, 50, 75, 90])
@pytest.mark.parametrize("skewed", [False, True])
def test_a_threshold_drops_the_asked_share_of_held_out_tokens(share, skewed):
    generator = torch.Generator().manual_seed(2)
    x_TI = torch.randn(4000, 64, generator=generator) + (0.5 if skewed else 0)
    x_TI = x_TI.exp() if skewed else x_TI
    calibration, held_out = x_TI.split(2000)
    dropped = kept(Threshold(), held_out, f"{share}%", stat=seen(calibration)).eq(0).double().mean().item()
    assert dropped == pytest.approx(share / 100, abs=0.01)


def test_a_shifted_normal_gets_half_dropped_where_a_normal_assumption_would_drop_70_percent():
    x_TI = torch.randn(4000, 64, generator=torch.Generator().manual_seed(3)) + 0.5
    dropped = kept(Threshold(), x_TI, "50%").eq(0).double().mean().item()
    assert dropped == pytest.approx(0.5, abs=0.005)


def test_a_threshold_lies_where_the_weights_do():
    facts = Threshold().prepare(torch.ones(2, 4, device="meta"), seen(torch.randn(9, 4)), parse_pattern("50%"))
    assert facts["threshold"].device.type == "meta"


@pytest.mark.parametrize("selection", EVERY, ids=lambda each: type(each).__name__)
def test_a_token_is_chosen_from_without_looking_at_the_others(selection):
    generator = torch.Generator().manual_seed(4)
    x_TI, weight_OI = torch.randn(9, 32, generator=generator), torch.randn(16, 32, generator=generator)
    stat, pattern = seen(torch.randn(50, 32, generator=generator)), parse_pattern(pattern_of(selection))
    facts = selection.prepare(weight_OI, stat, pattern)
    together = selection.keep(x_TI, pattern, facts)
    alone = torch.cat([selection.keep(x_I[None], pattern, facts) for x_I in x_TI])
    assert torch.equal(together, alone)
    assert 0 < together.sum() < together.numel()


@pytest.mark.parametrize("selection", [CLACT(), Amber(), WeightVariance()], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("pattern", ["2:4", "3:8", "8:16", "16:32", "70%"])
def test_scores_keep_exactly_as_many_as_the_pattern_says(selection, pattern):
    generator = torch.Generator().manual_seed(5)
    x_TI, weight_OI = torch.randn(40, 64, generator=generator), torch.randn(16, 64, generator=generator)
    keep_TI = kept(selection, x_TI, pattern, weight_OI) != 0
    given = parse_pattern(pattern)
    if isinstance(given, NM):
        assert (keep_TI.view(40, -1, given.m).sum(-1) == given.n).all()
    else:
        assert (keep_TI.sum(1) == 64 - int(64 * 0.7)).all()


@pytest.mark.parametrize(
    ("selection", "pattern", "says"),
    [
        (TopK(), "2:4", "use nm"),
        (Magnitude(), "50%", "use topk"),
        (Threshold(), "2:4", "use nm"),
        (CLACT(), "50%@matrix", "use 50%"),
        (TopK(), "50%@matrix", "use 50%"),
    ],
)
def test_a_pattern_that_a_selection_cannot_keep_is_refused(selection, pattern, says):
    with pytest.raises(ValueError, match=rf"^pattern: {pattern}.*{says}"):
        selection.check(parse_pattern(pattern))
