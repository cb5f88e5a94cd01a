import pytest
import torch

from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import NM, parse_pattern
from tasks.prune.weight.sparsegpt import SparseGPT
from tasks.prune.weight.wanda import Wanda
from tests.golden import INPUTS, NORMS, WEIGHT
from tests.prune.weight import textbook
from tests.prune.weight.test_pruners import bits, case, seen

F64 = torch.float64


class ColumnZero(NM):
    """Drops the first of all inputs in every row."""

    def select(self, score_OI):
        keep = torch.ones_like(score_OI, dtype=torch.bool)
        keep[:, 0] = False
        return keep


def prune(weight_OI, x_TI, pattern, **options):
    pruner = SparseGPT(**options)
    return pruner.prune(weight_OI, seen(pruner, x_TI), parse_pattern(pattern) if isinstance(pattern, str) else pattern)


def test_golden():
    pruned_OI = prune(WEIGHT, INPUTS, "2:4")
    assert bits(pruned_OI) == "10101001 00110101 11000101 01011010"
    expected = torch.tensor([4, 0, 3.619717, 0, -6.306564, 0, 0, -0.623626], dtype=F64)
    torch.testing.assert_close(pruned_OI[0], expected, atol=1e-6, rtol=0)

    def error(pruned_OI):
        return ((pruned_OI - WEIGHT) @ INPUTS.T).square().sum().item()

    assert error(pruned_OI) == pytest.approx(316.564969, abs=1e-5)
    assert error(Magnitude().prune(WEIGHT, None, parse_pattern("2:4"))) == pytest.approx(952.64, abs=1e-2)
    assert error(Wanda().prune(WEIGHT, seen(Wanda(), INPUTS), parse_pattern("2:4"))) == pytest.approx(486.92, abs=1e-2)


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "16:32", "3:4", "1:1", "50%", "70%", "0%"])
@pytest.mark.parametrize("block", [1, 16, 24, 128])
def test_equals_the_column_loop_of_the_paper(pattern, block):
    weight_OI, x_TI = case(inputs=96, dtype=F64)
    expected_OI, _, _ = textbook.sparsegpt(weight_OI, x_TI, parse_pattern(pattern), block=block)
    torch.testing.assert_close(prune(weight_OI, x_TI, pattern, block=block), expected_OI)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float32_keeps_the_same(dtype):
    weight_OI, x_TI = case(outputs=64, inputs=256, tokens=1000, dtype=dtype)
    expected_OI, _, _ = textbook.sparsegpt(weight_OI, x_TI, parse_pattern("2:4"))
    kept, expected = prune(weight_OI, x_TI, "2:4") != 0, expected_OI != 0
    assert (kept & expected).sum() / (kept | expected).sum() >= 0.999


@pytest.mark.parametrize("pattern", ["2:4", "50%"])
def test_what_it_costs_is_the_sum_of_its_squared_errors(pattern):
    """trace(D H Dᵀ) = Σ e²: every step's loss is final."""
    weight_OI, x_TI = case(dtype=F64)
    _, hessian_II, errors = textbook.sparsegpt(weight_OI, x_TI, parse_pattern(pattern))
    change_OI = prune(weight_OI, x_TI, pattern) - weight_OI
    assert (change_OI @ hessian_II @ change_OI.T).trace().item() == pytest.approx(errors, rel=1e-9)


@pytest.mark.parametrize("pattern", ["2:4", "50%@matrix", "1:4"])
def test_uncorrelated_equal_inputs_give_magnitude_bit_for_bit(pattern):
    weight_OI, _ = case()
    expected = Magnitude().prune(weight_OI, None, parse_pattern(pattern))
    assert torch.equal(prune(weight_OI, 3 * torch.eye(64), pattern), expected)


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "50%@matrix"])
def test_uncorrelated_inputs_undamped_give_wandas_keep(pattern):
    x_TI = torch.diag(NORMS)
    expected = Wanda().prune(WEIGHT, seen(Wanda(), x_TI), parse_pattern(pattern))
    assert torch.equal(prune(WEIGHT, x_TI, pattern, damp=0.0), expected)


def test_dropping_one_column_is_least_squares_on_the_others():
    weight_OI, x_TI = case(dtype=F64)
    pruned_OI = prune(weight_OI, x_TI, ColumnZero(63, 64), damp=0.0)
    solved = torch.linalg.lstsq(x_TI[:, 1:], x_TI @ weight_OI.T).solution.T
    torch.testing.assert_close(pruned_OI[:, 1:], solved)
    assert (pruned_OI[:, 0] == 0).all()


@pytest.mark.parametrize("pattern", ["2:4", "3:4", "8:16", "2:3"])
def test_groups_do_not_depend_on_the_block(pattern):
    weight_OI, x_TI = case(inputs=96, dtype=F64)
    whole = prune(weight_OI, x_TI, pattern, block=96)
    for block in (1, 10, 32, 50, 1000):
        torch.testing.assert_close(prune(weight_OI, x_TI, pattern, block=block), whole)


def test_rows_are_independent_for_groups():
    weight_OI, x_TI = case(dtype=F64)
    alone = torch.cat([prune(row_I[None], x_TI, "2:4") for row_I in weight_OI])
    torch.testing.assert_close(alone, prune(weight_OI, x_TI, "2:4"))


@pytest.mark.parametrize("pattern", ["2:4", "50%"])
def test_the_scale_of_the_inputs_does_not_matter(pattern):
    weight_OI, x_TI = case(dtype=F64)
    x_TI[:, [5, 6, 40]] = 0
    torch.testing.assert_close(prune(weight_OI, 1e-4 * x_TI, pattern), prune(weight_OI, x_TI, pattern))


@pytest.mark.parametrize("pattern", ["2:4", "50%"])
def test_dead_inputs_lose_their_weights_and_disturb_no_other(pattern):
    weight_OI, x_TI = case(dtype=F64)
    x_TI[:, [0, 33, 63]] = 0
    pruned_OI = prune(weight_OI, x_TI, pattern)
    assert (pruned_OI[:, [0, 33, 63]] == 0).all()
    torch.testing.assert_close(pruned_OI, textbook.sparsegpt(weight_OI, x_TI, parse_pattern(pattern))[0])


def test_a_score_is_what_dropping_the_weight_alone_costs_once_the_others_made_up_for_it():
    weight_OI, x_TI = case(dtype=F64)
    x_TI[:, [0, 33]] = 0
    score_OI = SparseGPT().score(weight_OI, seen(SparseGPT(), x_TI))
    alive = (x_TI != 0).any(0)
    gram_II = x_TI[:, alive].T @ x_TI[:, alive]
    gram_II.diagonal().add_(0.01 * gram_II.diagonal().mean())
    cost_OI = torch.zeros_like(weight_OI)
    cost_OI[:, alive] = weight_OI[:, alive].square() / gram_II.inverse().diagonal()
    torch.testing.assert_close(score_OI.square(), cost_OI)


def test_fewer_tokens_than_inputs_need_damping():
    weight_OI, x_TI = case(tokens=10)
    assert prune(weight_OI, x_TI, "2:4").isfinite().all()
    with pytest.raises(ValueError, match="raise damp"):
        prune(weight_OI, x_TI, "2:4", damp=0.0)


def test_it_beats_wanda_on_its_own_inputs():
    weight_OI, x_TI = case()

    def error(pruned_OI):
        return ((pruned_OI - weight_OI) @ x_TI.T).square().sum()

    for pattern in ("2:4", "50%"):
        wanda_OI = Wanda().prune(weight_OI, seen(Wanda(), x_TI), parse_pattern(pattern))
        assert error(prune(weight_OI, x_TI, pattern)) < error(wanda_OI)


@pytest.mark.parametrize("pattern", ["2:4", "50%", "33%", "99%@matrix"])
@pytest.mark.parametrize("block", [24, 128])
def test_its_counts_are_those_of_its_blocks(pattern, block):
    """int(n · sparsity) of each block of columns: as many as a block may round down are more than the pattern's own."""
    weight_OI, x_TI = case(outputs=7, inputs=96, dtype=F64)
    pruner, parsed = SparseGPT(block=block), parse_pattern(pattern)
    pruned_OI, keep_OI = pruner.prune_and_keep(weight_OI, seen(pruner, x_TI), parsed)
    assert pruner.surplus(pruned_OI, parsed) == 0
    fuller_OI = keep_OI.clone()
    fuller_OI[tuple((~keep_OI).nonzero()[0])] = True
    assert pruner.surplus(fuller_OI, parsed) == 1


def test_inputs_that_are_all_zero_are_refused():
    weight_OI, x_TI = case()
    with pytest.raises(ValueError, match=r"^calibration: all 64 inputs were zero in all 200 tokens"):
        prune(weight_OI, 0 * x_TI, "2:4")
