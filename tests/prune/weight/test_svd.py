"""Against torch.linalg.svd in float64 and a square root of the Gram by its eigenvectors."""

import pytest
import torch

from tasks.calibrate.observers import InputNorm
from tasks.prune.factors import merge
from tasks.prune.packing import choose_packing, pattern_bytes
from tasks.prune.weight.pattern import parse_pattern
from tasks.prune.weight.svd import SVD, ActivationSVD, factorise
from tests.prune.weight.test_lowrank import correlated, gram, random

SHAPES = [(24, 24), (40, 24), (24, 40)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 5, 11])
def test_the_error_is_that_of_the_singular_values_left_out(shape, rank):
    weight_OI = random(*shape)
    left_Or, right_rI = factorise(weight_OI, rank)
    assert left_Or.shape == (shape[0], rank)
    assert right_rI.shape == (rank, shape[1])
    left_out = torch.linalg.svdvals(weight_OI)[rank:].square().sum()
    assert (weight_OI - left_Or @ right_rI).square().sum() == pytest.approx(left_out.item(), rel=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 5, 11])
def test_with_the_inputs_it_is_that_of_the_weight_times_the_root_of_the_gram(shape, rank):
    weight_OI, stat, damp = random(*shape), gram(correlated(shape[1])), 0.01
    mean = stat.gram_II.diagonal()[~stat.dead_I].mean()
    damped_II = stat.gram_II + torch.diag(torch.where(stat.dead_I, mean, damp * mean))
    value_I, vector_II = torch.linalg.eigh(damped_II)
    root_II = vector_II * value_I.sqrt() @ vector_II.T  # the symmetric root, not the triangular one
    change_OI = merge(None, *factorise(weight_OI, rank, stat.root_II(damp))) - weight_OI
    left_out = torch.linalg.svdvals(weight_OI @ root_II)[rank:].square().sum()
    assert (change_OI @ damped_II * change_OI).sum() == pytest.approx(left_out.item(), rel=1e-8)
    plain_OI = merge(None, *factorise(weight_OI, rank)) - weight_OI
    assert left_out < (plain_OI @ damped_II * plain_OI).sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_dtype_stays_and_both_factors_carry_the_size(dtype):
    weight_OI = (300 * random(64, 32)).to(dtype)
    left_Or, right_rI = factorise(weight_OI, 8, 1e4 * torch.eye(32))
    assert left_Or.dtype == right_rI.dtype == merge(None, left_Or, right_rI).dtype == dtype
    torch.testing.assert_close(left_Or.float().norm(dim=0), right_rI.float().norm(dim=1), rtol=0.01, atol=0)
    assert left_Or.abs().max() < 300


def test_a_matrix_of_low_rank_is_reproduced():
    weight_OI = random(30, 6, seed=1) @ random(6, 50, seed=2)
    for root_II in (None, gram(correlated(50)).root_II(0.01)):
        for rank in (6, 9):  # 9: of a singular matrix, the last columns are anything and must be worth nothing
            torch.testing.assert_close(merge(None, *factorise(weight_OI, rank, root_II)), weight_OI)
    nothing_OI = torch.zeros(30, 50)
    assert torch.equal(merge(None, *factorise(nothing_OI, 6)), nothing_OI)


@pytest.mark.parametrize("rank", [0, -1, 15, 16, 24])
def test_a_rank_that_saves_nothing_is_refused(rank):
    with pytest.raises(ValueError, match=rf"rank: {rank} given, .* bytes of 24 x 40; valid is 1 to 14"):
        factorise(random(24, 40), rank)  # 24 · 40 / (24 + 40) is 15: as many numbers as the matrix has
    with pytest.raises(ValueError, match="of 1 x 4; none does"):
        factorise(random(1, 4), 1)


@pytest.mark.parametrize("text", ["50%", "2:4", "70%@matrix"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_budget_is_what_the_pattern_leaves_and_one_rank_more_would_not_fit(text, dtype):
    weight_OI, pattern = random(96, 64).to(dtype), parse_pattern(text)
    budget = pattern_bytes(pattern, 96, 64, dtype.itemsize)
    found = SVD().decompose(weight_OI, None, None, pattern)
    assert found.size_bytes == found.rank * (96 + 64) * dtype.itemsize
    assert found.size_bytes <= budget < found.size_bytes + (96 + 64) * dtype.itemsize


def test_a_product_alone_has_no_sparse_part_and_is_the_truncated_svd():
    weight_OI = random(96, 64)
    found = SVD(rank=7).decompose(weight_OI, None, None, parse_pattern("0%"))
    assert found.pattern is None
    assert found.rank == 7
    assert choose_packing(found.sparse_OI).name == "empty"
    u_Or, value_r, right_rI = torch.linalg.svd(weight_OI)
    torch.testing.assert_close(found.merged_OI(), u_Or[:, :7] * value_r[:7] @ right_rI[:7])


def test_the_inputs_change_the_product_and_its_outputs_are_nearer():
    weight_OI, stat, pattern = random(96, 64), gram(correlated(64)), parse_pattern("0%")
    plain, weighed = (kind(rank=7).decompose(weight_OI, stat, None, pattern) for kind in (SVD, ActivationSVD))
    far, near = (stat.output_energy(found.merged_OI() - weight_OI) for found in (plain, weighed))
    assert near < 0.8 * far
    assert (weighed.merged_OI() - weight_OI).norm() > (plain.merged_OI() - weight_OI).norm()


def test_a_weight_that_is_pruned_already_is_refused():
    weight_OI = random(96, 64)
    weight_OI[:, ::2] = 0
    for kind in (SVD(rank=7), ActivationSVD(rank=7)):
        with pytest.raises(ValueError, match=r"weight: 50\.0% of it is zero, .* give the dense model"):
            kind.decompose(weight_OI, gram(correlated(64)), None, parse_pattern("0%"))


def test_bad_settings_and_arguments_are_named():
    norms = InputNorm(64, "cpu")
    norms.update(correlated(64))
    for call, said in (
        (lambda: SVD(rank=0), "rank: 0 given, valid is 1 or more"),
        (lambda: ActivationSVD(rank=-1), "rank: -1 given"),
        (lambda: ActivationSVD(damp=-1.0), "damp: -1.0 given"),
        (lambda: ActivationSVD().decompose(random(96, 64), norms, None, parse_pattern("50%")), "needs InputGram"),
        (lambda: SVD(rank=39).check(parse_pattern("50%"), 96, 64), "rank: 39 given, .* of 96 x 64; valid is 1 to 38"),
        (lambda: SVD().check(parse_pattern("0%"), 96, 64), "pattern: 0% saves no bytes of 96 x 64"),
        (lambda: SVD().check(parse_pattern("99%"), 2, 100), "leaves 29 bytes of 2 x 100, rank 1 takes 204"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    SVD(rank=38).check(parse_pattern("50%"), 96, 64)


def test_a_choice_speaks_of_whole_parts_of_a_name():
    names = ["self_attn.q_proj", "self_attn.qk_proj", "mlp.up_proj"]

    def chosen(*linears):
        return [name for name in names if SVD(linears=linears).chooses(name)]

    assert chosen() == names
    assert chosen("q_proj") == names[:1]
    assert chosen("self_attn") == names[:2]
    assert chosen("self_attn.q_proj", "mlp") == [names[0], names[2]]
    assert chosen("proj", "attn", "self_attn.q") == []
