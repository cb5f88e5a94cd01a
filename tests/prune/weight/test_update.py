"""What becomes of the weights that stay, against golden numbers, least squares, and each other. All in float64."""

import pytest
import torch

from tasks.calibrate.observers import InputDrift, InputGram
from tasks.prune import PRUNERS, UPDATES
from tasks.prune.weight.pattern import parse_pattern
from tasks.prune.weight.refit import Refit, fit
from tasks.prune.weight.sparsegpt import SparseGPT
from tasks.prune.weight.sweep import Sweep
from tasks.prune.weight.update import Leave
from tests.golden import INPUTS, NORMS, WEIGHT
from tests.prune.weight.test_pruners import case, seen

F64 = torch.float64


def gram_of(x_TI):
    stat = InputGram(x_TI.shape[1], "cpu")
    stat.update(x_TI)
    return stat


def kept(name, weight_OI, stat, pattern):
    return PRUNERS[name]().prune_and_keep(weight_OI, stat, parse_pattern(pattern))[1]


def error(weight_OI, made_OI, x_TI):
    return ((made_OI - weight_OI) @ x_TI.T).square().sum().item()


@pytest.mark.parametrize(
    ("name", "golden"), [("sparsegpt", 208.632493), ("wanda", 174.084237), ("magnitude", 408.373754)]
)
def test_golden_refit_errors(name, golden):
    stat = gram_of(INPUTS)
    made = Refit(damp=0.0).update(WEIGHT, kept(name, WEIGHT, stat, "2:4"), stat)
    assert error(WEIGHT, made.weight_OI, INPUTS) == pytest.approx(golden, abs=1e-6)


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:4", "50%", "20%", "70%@matrix", "30%@matrix", "0%"])
def test_a_refit_is_least_squares_row_by_row(pattern):
    """Few kept, few dropped, and rows of different counts take different ways to the same rows."""
    weight_OI, x_TI = case(dtype=F64)
    keep_OI = kept("wanda", weight_OI, gram_of(x_TI), pattern)
    made = Refit(damp=0.0).update(weight_OI, keep_OI, gram_of(x_TI))
    for row in range(len(weight_OI)):
        expected_I = torch.zeros(64, dtype=F64)
        columns = keep_OI[row]
        expected_I[columns] = torch.linalg.lstsq(x_TI[:, columns], (x_TI @ weight_OI[row])[:, None]).solution[:, 0]
        torch.testing.assert_close(made.weight_OI[row], expected_I, rtol=1e-8, atol=1e-10)


def test_damping_pulls_towards_the_dense_weights():
    weight_OI, x_TI = case(dtype=F64)
    stat = gram_of(x_TI)
    keep_OI = kept("wanda", weight_OI, stat, "2:4")
    epsilon = 0.05 * stat.gram_II.diagonal().mean()
    rows_TI = torch.cat([x_TI, epsilon.sqrt() * torch.eye(64, dtype=F64)])  # as so many tokens more
    undamped = Refit(damp=0.0).update(weight_OI, keep_OI, gram_of(rows_TI))
    torch.testing.assert_close(Refit(damp=0.05).update(weight_OI, keep_OI, stat).weight_OI, undamped.weight_OI)


@pytest.mark.parametrize("drift", [0.3, 1.0])
@pytest.mark.parametrize("pattern", ["2:4", "25%"])
def test_drift_correction_is_least_squares_towards_the_dense_model(drift, pattern):
    weight_OI, x_TI = case(dtype=F64)
    dense_TI = x_TI + 0.3 * torch.randn(x_TI.shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    stat = InputDrift(64, "cpu")
    stat.see_both(x_TI, dense_TI)
    keep_OI = kept("wanda", weight_OI, stat, pattern)
    made = Refit(drift=drift, damp=0.0).update(weight_OI, keep_OI, stat)
    target_TO = ((1 - drift) * x_TI + drift * dense_TI) @ weight_OI.T
    for row in range(len(weight_OI)):
        columns = keep_OI[row]
        solved = torch.linalg.lstsq(x_TI[:, columns], target_TO[:, row, None]).solution[:, 0]
        torch.testing.assert_close(made.weight_OI[row, columns], solved, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "50%", "50%@matrix"])
@pytest.mark.parametrize("name", ["magnitude", "wanda", "ria", "sparsegpt"])
def test_refit_beats_sweep_beats_leave(name, pattern):
    weight_OI, x_TI = case(dtype=F64)
    stat = gram_of(x_TI)
    keep_OI = kept(name, weight_OI, stat, pattern)
    made = {
        name: update.update(weight_OI, keep_OI, stat).weight_OI
        for name, update in {"refit": Refit(damp=1e-6), "sweep": Sweep(), "none": Leave()}.items()
    }
    assert all(torch.equal(made_OI != 0, keep_OI) for made_OI in made.values())
    errors = {name: error(weight_OI, made_OI, x_TI) for name, made_OI in made.items()}
    assert errors["refit"] < errors["sweep"] < errors["none"]


@pytest.mark.parametrize("pattern", ["2:4", "50%", "70%"])
@pytest.mark.parametrize("block", [16, 24, 128])
def test_the_sweep_of_sparsegpts_own_keep_is_sparsegpt(pattern, block):
    weight_OI, x_TI = case(dtype=F64)
    stat = gram_of(x_TI)
    pruned_OI, keep_OI = SparseGPT(block=block).prune_and_keep(weight_OI, stat, parse_pattern(pattern))
    torch.testing.assert_close(Sweep().update(weight_OI, keep_OI, stat).weight_OI, pruned_OI)


def test_uncorrelated_inputs_leave_nothing_to_make_up_for():
    stat = gram_of(torch.diag(NORMS))
    keep_OI = kept("wanda", WEIGHT, stat, "2:4")
    for update in (Sweep(damp=0.0), Refit(damp=0.0)):
        torch.testing.assert_close(update.update(WEIGHT, keep_OI, stat).weight_OI, WEIGHT * keep_OI)


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_and_no_change_in_place(name, dtype):
    weight_OI, x_TI = case(dtype=dtype)
    stat, before = gram_of(x_TI), weight_OI.clone()
    keep_OI = kept("wanda", weight_OI, stat, "2:4")
    made_OI = UPDATES[name]().update(weight_OI, keep_OI, stat).weight_OI
    assert made_OI.dtype == dtype
    assert not made_OI[~keep_OI].any()
    assert torch.equal(weight_OI, before)


@pytest.mark.parametrize("pattern", ["5%", "20%", "2:4"])
def test_a_refit_is_no_worse_than_the_sweep_once_it_is_rounded_to_16_bits(pattern):
    """Where little is dropped, rounding to bfloat16 costs more than least squares wins on most rows."""
    weight_OI, x_TI = case(dtype=torch.bfloat16)
    stat = gram_of(x_TI)
    keep_OI = kept("wanda", weight_OI, stat, pattern)
    fitted, swept = (update.update(weight_OI, keep_OI, stat).weight_OI.double() for update in (Refit(), Sweep()))
    epsilon = 1e-4 * stat.gram_II.diagonal().mean().double()
    rows_TI = torch.cat([x_TI.double(), epsilon.sqrt() * torch.eye(64, dtype=F64)])  # as so many tokens more
    dense_OI = weight_OI.double()
    for row in range(len(dense_OI)):
        errors = [error(dense_OI[row], made_OI[row], rows_TI) for made_OI in (fitted, swept)]
        assert errors[0] <= errors[1] * (1 + 1e-4)


def test_dead_and_doubled_inputs_are_damped_and_recorded():
    weight_OI, x_TI = case(dtype=F64)
    x_TI[:, 5], x_TI[:, 9] = 0, x_TI[:, 8]
    stat = gram_of(x_TI)
    keep_OI = torch.ones(24, 64, dtype=torch.bool)
    keep_OI[:, 20:] = False
    made = Refit().update(weight_OI, keep_OI, stat)
    assert made.damp == 1e-4
    assert made.weight_OI.isfinite().all()
    torch.testing.assert_close(made.weight_OI[:, 5], weight_OI[:, 5])  # nothing is known of it: it stays
    raised = Refit(damp=0.0).update(weight_OI, keep_OI, stat)
    assert raised.damp > 0


@pytest.mark.parametrize("update", [Refit(), Refit(damp=0.0), Sweep()], ids=str)
def test_inputs_that_are_all_zero_are_refused(update):
    """No share of their mean is a damping, and an identity in the place of their Gram would be an invention."""
    weight_OI, x_TI = case(dtype=F64)
    keep_OI = kept("magnitude", weight_OI, None, "2:4")
    with pytest.raises(ValueError, match=r"^calibration: all 64 inputs were zero in all 200 tokens"):
        update.update(weight_OI, keep_OI, gram_of(0 * x_TI))


@pytest.mark.parametrize("damp", [None, 0.0, 1e-12, 1e-3])
@pytest.mark.parametrize("copies", [0, 1, 16])
@pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:4", "50%", "20%@matrix", "0%"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_gram_of_any_rank_is_refitted_with_the_damping_that_is_recorded(pattern, copies, damp, dtype):
    weight_OI, x_TI = case(dtype=dtype)
    x_TI[:, 32 : 32 + copies] = x_TI[:, :copies]
    x_TI[:, 60:] = 0
    stat = gram_of(x_TI)
    keep_OI = kept("magnitude", weight_OI, None, pattern)
    made = Refit(damp=damp).update(weight_OI, keep_OI, stat)
    assert made.weight_OI.isfinite().all()
    assert not made.weight_OI[~keep_OI].any()
    assert 0 < made.damp <= 1e-3
    assert stat.output_energy(made.weight_OI - weight_OI) <= 1.001 * stat.output_energy(made.swept_OI - weight_OI)


@pytest.mark.parametrize("pattern", ["2:4", "3:4", "20%@matrix"])
@pytest.mark.parametrize("damp", [1e-16, 1e-15])
@pytest.mark.parametrize("tokens", [63, 200])
def test_where_rounding_spoils_the_part_of_a_row_alone_it_is_damped_more(pattern, damp, tokens):
    """With so little damping the whole Gram just has its factor, and the rows' own systems do not all have theirs."""
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        x_TI, weight_OI = (torch.randn(count, 64, generator=generator, dtype=F64) for count in (tokens, 12))
        x_TI[:, 32:48] = x_TI[:, :16] * (1 + 1e-7 * (seed % 2))
        x_TI[:, 61:] = 0
        stat = gram_of(x_TI)
        made = Refit(damp=damp).update(weight_OI, kept("magnitude", weight_OI, None, pattern), stat)
        error, sweep = (stat.output_energy(made_OI - weight_OI) for made_OI in (made.weight_OI, made.swept_OI))
        assert error <= sweep * (1 + 1e-6)
        assert made.damp >= damp


def test_a_part_without_a_cholesky_factor_gives_no_rows():
    best_OI, singular_II = torch.ones(3, 4, dtype=F64), torch.ones(4, 4, dtype=F64)
    keep_OI = (torch.arange(4) < 2).expand(3, 4)
    assert fit(best_OI, best_OI @ singular_II, keep_OI, singular_II, torch.eye(4, dtype=F64)) is None


@pytest.mark.parametrize("drift", [0.0, 0.5])
@pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:4", "50%", "30%@matrix"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, F64])
def test_what_is_pruned_already_stays_as_it_is_under_a_keep_of_all_that_is_left(pattern, dtype, drift):
    """The sweep's error is 0 there, and a refit's that of rounding in float64."""
    weight_OI, x_TI = case(dtype=dtype)
    keep_OI = kept("magnitude", weight_OI, None, pattern)
    stat = InputDrift(64, "cpu")
    stat.see_both(x_TI, x_TI)
    for wider_OI in (keep_OI, keep_OI | (torch.arange(64) % 7 == 0), torch.ones_like(keep_OI)):
        pruned_OI = weight_OI * keep_OI
        made = Refit(drift=drift).update(pruned_OI, wider_OI, stat)
        torch.testing.assert_close(
            made.weight_OI, pruned_OI, rtol=0.02 if drift else None, atol=0.02 if drift else None
        )


def test_with_drift_no_error_of_a_sweep_is_given_which_was_compared_in_another_norm():
    weight_OI, x_TI = case(dtype=F64)
    stat = InputDrift(64, "cpu")
    stat.see_both(x_TI, 1.1 * x_TI)
    keep_OI = kept("wanda", weight_OI, stat, "2:4")
    assert Refit(drift=0.5).update(weight_OI, keep_OI, stat).swept_OI is None
    assert Refit().update(weight_OI, keep_OI, stat).swept_OI is not None


def test_drift_correction_without_the_dense_stream_is_refused():
    weight_OI, x_TI = case(dtype=F64)
    stat = gram_of(x_TI)
    with pytest.raises(ValueError, match=r"^stat: InputGram given, Refit\(drift=0.5, damp=None\) needs InputDrift"):
        Refit(drift=0.5).update(weight_OI, kept("wanda", weight_OI, stat, "2:4"), stat)


def test_a_kept_weight_of_zero_takes_part():
    weight_OI, x_TI = case(dtype=F64)
    keep_OI = kept("wanda", weight_OI, gram_of(x_TI), "2:4")
    place = tuple(keep_OI.nonzero()[0].tolist())
    weight_OI[place] = 0
    assert Refit().update(weight_OI, keep_OI, gram_of(x_TI)).weight_OI[place] != 0


@pytest.mark.parametrize(
    ("options", "says"), [({"drift": 1.5}, "drift"), ({"drift": -1}, "drift"), ({"damp": -1}, "damp")]
)
def test_values_are_checked(options, says):
    with pytest.raises(ValueError, match=f"^{says}: .* valid is"):
        Refit(**options)


def test_an_update_asks_for_the_observer_that_it_needs():
    assert Leave().observes is None
    assert Sweep().observes is Refit().observes is InputGram
    assert Refit(drift=0.5).observes is InputDrift
    assert seen(SparseGPT(), INPUTS).norm_I().shape == (8,)
