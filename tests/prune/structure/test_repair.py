"""Repair against least squares by brute force, against the refit, and against the plain cut. All in float64."""

import pytest
import torch

from tasks.calibrate.observers import InputDrift, InputGram
from tasks.prune.structure.repair import Repair
from tasks.prune.weight.refit import Refit

F64 = torch.float64
INPUTS, OUTPUTS, TOKENS = 24, 7, 200
KEPT = torch.tensor([0, 2, 3, 7, 8, 11, 12, 13, 19, 20, 23])


def case():
    """Dense rows, correlated inputs, and how they are in the dense model."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape):
        return torch.randn(shape, generator=generator, dtype=F64)

    x_TI = noise(TOKENS, 9) @ noise(9, INPUTS) + 0.3 * noise(TOKENS, INPUTS) + noise(INPUTS)
    return noise(OUTPUTS, INPUTS), x_TI, x_TI + 0.4 * noise(TOKENS, INPUTS)


def seen(x_TI, dense_TI=None):
    stat = (InputGram if dense_TI is None else InputDrift)(x_TI.shape[1], "cpu")
    if dense_TI is None:
        stat.update(x_TI)
    else:
        stat.see_both(x_TI, dense_TI)
    return stat


def least_squares(x_TK, target_TO):
    return torch.linalg.lstsq(x_TK, target_TO).solution.T


@pytest.mark.parametrize("drift", [0.0, 0.3, 1.0])
def test_the_rows_that_stay_are_least_squares_towards_the_dense_model(drift):
    weight_OI, x_TI, dense_TI = case()
    stat = seen(x_TI, dense_TI if drift else None)
    made = Repair(drift=drift, damp=0.0).repair(weight_OI, KEPT, stat)
    target_TO = ((1 - drift) * x_TI + drift * dense_TI) @ weight_OI.T
    torch.testing.assert_close(made.weight_OK, least_squares(x_TI[:, KEPT], target_TO), rtol=1e-8, atol=1e-10)
    assert made.damp == 0.0


@pytest.mark.parametrize("drift", [0.0, 0.5])
def test_damping_is_so_many_tokens_more_that_want_the_dense_rows(drift):
    weight_OI, x_TI, dense_TI = case()
    made = Repair(drift=drift).repair(weight_OI, KEPT, seen(x_TI, dense_TI if drift else None))
    assert made.damp == (1e-2 if drift else 1e-4)
    more_II = (made.damp * x_TI.square().sum(0).mean()).sqrt() * torch.eye(INPUTS, dtype=F64)
    target_TO = torch.cat([(1 - drift) * x_TI + drift * dense_TI, more_II]) @ weight_OI.T
    expected_OK = least_squares(torch.cat([x_TI, more_II])[:, KEPT], target_TO)
    torch.testing.assert_close(made.weight_OK, expected_OK, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("drift", [0.0, 0.5])
def test_it_is_the_refit_of_a_keep_that_all_rows_share(drift):
    weight_OI, x_TI, dense_TI = case()
    stat = seen(x_TI, dense_TI if drift else None)
    keep_OI = torch.zeros(OUTPUTS, INPUTS, dtype=torch.bool)
    keep_OI[:, KEPT] = True
    refitted_OI = Refit(drift=drift).update(weight_OI, keep_OI, stat).weight_OI
    torch.testing.assert_close(Repair(drift=drift).repair(weight_OI, KEPT, stat).weight_OK, refitted_OI[:, KEPT])


@pytest.mark.parametrize("damp", [0.0, 1e-4, 0.1])
def test_where_all_inputs_stay_nothing_changes(damp):
    weight_OI, x_TI, _ = case()
    made = Repair(drift=0.0, damp=damp).repair(weight_OI, torch.arange(INPUTS), seen(x_TI))
    torch.testing.assert_close(made.weight_OK, weight_OI, rtol=1e-9, atol=1e-9)
    assert made.gain == pytest.approx(0, abs=1e-9)


def test_the_gain_is_what_the_squared_error_fell_by():
    weight_OI, x_TI, dense_TI = case()
    for drift, stat in ((0.0, seen(x_TI)), (0.5, seen(x_TI, dense_TI))):
        made = Repair(drift=drift, damp=0.0).repair(weight_OI, KEPT, stat)
        target_TO = ((1 - drift) * x_TI + drift * dense_TI) @ weight_OI.T

        def error(weight_OK, target_TO=target_TO):
            return (x_TI[:, KEPT] @ weight_OK.T - target_TO).square().sum()

        fallen = error(weight_OI[:, KEPT]) - error(made.weight_OK)
        assert fallen > 0
        assert made.gain == pytest.approx((fallen / (x_TI @ weight_OI.T).square().sum()).item())


def test_tokens_not_seen_gain_as_well():
    weight_OI, x_TI, _ = case()
    made = Repair(drift=0.0).repair(weight_OI, KEPT, seen(x_TI[:150]))
    new_TI = x_TI[150:]
    target_TO = new_TI @ weight_OI.T
    repaired, cut = (
        (new_TI[:, KEPT] @ rows_OK.T - target_TO).square().sum() for rows_OK in (made.weight_OK, weight_OI[:, KEPT])
    )
    assert repaired < 0.5 * cut


def test_inputs_that_carry_nothing_leave_the_cut_as_it_is():
    weight_OI, x_TI, _ = case()
    made = Repair(drift=0.0).repair(weight_OI, KEPT, seen(0 * x_TI))
    torch.testing.assert_close(made.weight_OK, weight_OI[:, KEPT])
    assert made.gain == 0
    torch.testing.assert_close(
        Repair(drift=0.0).repair(weight_OI, KEPT, seen(torch.eye(INPUTS, dtype=F64))).weight_OK, weight_OI[:, KEPT]
    )


def test_dead_and_doubled_inputs_are_damped_and_recorded():
    weight_OI, x_TI, _ = case()
    x_TI[:, 2], x_TI[:, 8] = 0, x_TI[:, 7]
    made = Repair(drift=0.0, damp=0.0).repair(weight_OI, KEPT, seen(x_TI))
    assert 0 < made.damp < 1e-4
    assert made.weight_OK.isfinite().all()
    usual = Repair(drift=0.0).repair(weight_OI, KEPT, seen(x_TI))
    assert usual.damp == 1e-4
    torch.testing.assert_close(usual.weight_OK[:, 1], weight_OI[:, 2])  # nothing is known of it: it stays


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_and_no_change_in_place(dtype):
    weight_OI, x_TI, dense_TI = case()
    weight_OI, stat = weight_OI.to(dtype), seen(x_TI.to(dtype), dense_TI.to(dtype))
    before_OI, gram_II, cross_II = weight_OI.clone(), stat.gram_II.clone(), stat.cross_II.clone()
    assert Repair().repair(weight_OI, KEPT, stat).weight_OK.dtype == dtype
    assert torch.equal(weight_OI, before_OI)
    assert torch.equal(stat.gram_II, gram_II)
    assert torch.equal(stat.cross_II, cross_II)


@pytest.mark.parametrize(
    ("options", "says"), [({"drift": 1.5}, "drift"), ({"drift": -0.1}, "drift"), ({"damp": -1.0}, "damp")]
)
def test_values_are_checked(options, says):
    with pytest.raises(ValueError, match=f"^{says}: .* valid is"):
        Repair(**options)


def test_it_asks_for_the_observer_that_it_needs():
    assert Repair(drift=0.0).observes is InputGram
    assert Repair().observes is InputDrift
