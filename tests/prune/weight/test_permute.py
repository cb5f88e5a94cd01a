"""Golden numbers: the example of RIA and Wanda, its optima by brute force over all partitions, and planted optima."""

from itertools import combinations

import pytest
import torch

from tasks.prune.weight import permute as room
from tasks.prune.weight.pattern import NM, Unstructured
from tasks.prune.weight.permute import deal, permute, permute_within, retained
from tests.golden import NORMS, WEIGHT
from tests.prune.weight import textbook

PATTERNS = [NM(1, 2), NM(1, 4), NM(2, 4), NM(3, 4), NM(4, 8), NM(8, 16), NM(16, 32), NM(2, 3), NM(4, 4), NM(1, 1)]
MAGNITUDE = WEIGHT.abs()
RIA = (MAGNITUDE / MAGNITUDE.sum(0) + MAGNITUDE / MAGNITUDE.sum(1, keepdim=True)) * NORMS.sqrt()
WANDA = MAGNITUDE * NORMS


def scores(kind, outputs=12, inputs=96, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    score_OI = torch.rand(outputs, inputs, generator=generator) * torch.rand(inputs, generator=generator)
    if kind == "tied":
        score_OI = (score_OI * 4).round()
    if kind == "equal":
        score_OI = torch.ones(outputs, inputs)
    if kind == "zero":
        score_OI = torch.zeros(outputs, inputs)
    if kind == "negative":
        score_OI = -score_OI
    return score_OI.to(dtype)


def kept(score_OI, pattern):
    """Summed by a full sort of each group, not by the code under test."""
    return score_OI.double()[textbook.keep(score_OI.double(), pattern)].sum().item()


def best_of_all(score_OI, pattern):
    """Over every way to cut 8 inputs into two groups of 4."""
    every = [[*first, *(set(range(8)) - set(first))] for first in combinations(range(8), 4)]
    return max(kept(score_OI[:, order], pattern) for order in every)


@pytest.mark.parametrize(
    ("score_OI", "before", "dealt", "found"),
    [(RIA, 9.271, 9.042, 9.298310), (WANDA, 90.15, 90.4, 90.8)],
    ids=["ria", "wanda"],
)
def test_the_papers_scores_reach_the_optimum_even_where_dealing_loses(score_OI, before, dealt, found):
    pattern = NM(2, 4)
    assert kept(score_OI, pattern) == pytest.approx(before, abs=5e-4)
    assert kept(score_OI[:, deal(score_OI, pattern)], pattern) == pytest.approx(dealt, abs=5e-4)
    assert kept(score_OI[:, permute(score_OI, pattern)], pattern) == pytest.approx(found, abs=5e-7)
    assert best_of_all(score_OI, pattern) == pytest.approx(found, abs=5e-7)


@pytest.mark.parametrize("pattern", [NM(1, 4), NM(2, 4), NM(3, 4)], ids=str)
def test_most_of_what_brute_force_gains_is_found(pattern):
    gained, possible = 0.0, 0.0
    for seed in range(20):
        score_OI = scores("distinct", outputs=6, inputs=8, seed=seed, dtype=torch.float64)
        before, best = kept(score_OI, pattern), best_of_all(score_OI, pattern)
        found = kept(score_OI[:, permute(score_OI, pattern)], pattern)
        assert before <= found <= best + 1e-12
        gained, possible = gained + found - before, possible + best - before
    assert gained > 0.85 * possible > 0


@pytest.mark.parametrize("pattern", [pattern for pattern in PATTERNS if pattern.n < pattern.m], ids=str)
def test_a_planted_optimum_is_found(pattern):
    """n of m inputs matter and stand side by side: dealt out well, none of them is lost."""
    score_OI = scores("distinct")
    score_OI[:, score_OI.shape[1] // pattern.m * pattern.n :] = 0
    assert kept(score_OI, pattern) < score_OI.sum().item()
    found_OI = score_OI[:, permute(score_OI, pattern)]
    assert kept(found_OI, pattern) == pytest.approx(score_OI.sum().item(), rel=1e-6)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("kind", ["distinct", "tied", "equal", "zero", "negative"])
def test_an_order_that_never_retains_less(pattern, kind):
    score_OI = scores(kind)
    before_OI = score_OI.clone()
    order_I = permute(score_OI, pattern)
    assert order_I.sort().values.tolist() == list(range(96))
    assert kept(score_OI[:, order_I], pattern) >= kept(score_OI, pattern)
    assert torch.equal(permute(score_OI, pattern), order_I)
    assert torch.equal(score_OI, before_OI)


@pytest.mark.parametrize("kind", ["equal", "zero"])
def test_where_nothing_is_gained_nothing_moves(kind):
    assert permute(scores(kind), NM(2, 4)).tolist() == list(range(96))
    assert permute(scores("distinct"), NM(4, 4)).tolist() == list(range(96))
    assert permute(torch.empty(0, 8), NM(2, 4)).tolist() == list(range(8))


@pytest.mark.parametrize("pattern", [NM(1, 4), NM(2, 4), NM(5, 8)], ids=str)
def test_a_sweep_rises_by_what_it_says(pattern):
    score_OI = scores("distinct", outputs=2 * room.STRIP + 3, inputs=64, dtype=torch.float64)
    order_MG = torch.arange(64).view(-1, pattern.m).T.clone()
    rise = room._sweep(score_OI.T.contiguous(), order_MG, pattern.n)
    assert rise > 0
    after = kept(score_OI[:, order_MG.T.reshape(-1)], pattern)
    assert after - kept(score_OI, pattern) == pytest.approx(rise, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_is_taken(dtype):
    score_OI = scores("distinct", dtype=dtype)
    order_I = permute(score_OI, NM(2, 4))
    assert torch.equal(order_I, permute(score_OI.double(), NM(2, 4)))
    assert kept(score_OI[:, order_I], NM(2, 4)) > kept(score_OI, NM(2, 4))


def test_any_layout_and_gradients_are_taken():
    score_OI = scores("distinct")
    expected = permute(score_OI, NM(2, 4))
    assert torch.equal(permute(score_OI.T.contiguous().T, NM(2, 4)), expected)
    assert torch.equal(permute(score_OI.clone().requires_grad_(), NM(2, 4)), expected)
    assert retained(score_OI, NM(2, 4)) == pytest.approx(kept(score_OI, NM(2, 4)), rel=1e-12)


@pytest.mark.parametrize(("width", "shared"), [(8, 1), (16, 1), (8, 3), (16, 2), (48, 2), (96, 1)])
def test_inputs_stay_in_their_heads_and_shared_heads_move_alike(width, shared):
    score_OI = scores("distinct")
    order_I = permute_within(score_OI, NM(2, 4), width, shared)
    heads = order_I.view(-1, shared, width) - torch.arange(0, 96, width).view(-1, shared, 1)
    assert torch.equal(heads.sort(-1).values, torch.arange(width).expand_as(heads))
    assert torch.equal(heads, heads[:, :1].expand_as(heads))
    assert kept(score_OI[:, order_I], NM(2, 4)) > kept(score_OI, NM(2, 4))


def test_one_head_of_all_inputs_is_free():
    score_OI = scores("distinct")
    assert torch.equal(permute_within(score_OI, NM(2, 4), 96), permute(score_OI, NM(2, 4)))


@pytest.mark.parametrize("ask", [permute, deal, lambda score_OI, pattern: permute_within(score_OI, pattern, 8)])
def test_an_unstructured_pattern_is_refused(ask):
    with pytest.raises(ValueError, match=r"pattern: 50% given, but inputs are permuted for n:m alone") as error:
        ask(scores("distinct"), Unstructured(0.5))
    assert "\n" not in str(error.value)


def test_bad_input_is_told():
    score_OI = scores("distinct")
    with pytest.raises(ValueError, match="3:7 does not divide 96 inputs"):
        permute(score_OI, NM(3, 7))
    with pytest.raises(ValueError, match="3:7 does not divide 96 inputs"):
        deal(score_OI, NM(3, 7))
    with pytest.raises(ValueError, match="heads of 6 inputs given, 2:4 needs a multiple of 4"):
        permute_within(score_OI, NM(2, 4), 6)
    with pytest.raises(ValueError, match="5 x 8 inputs given, a divisor of 96 is needed"):
        permute_within(score_OI, NM(2, 4), 8, 5)
    score_OI[3, 5] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        permute(score_OI, NM(2, 4))
