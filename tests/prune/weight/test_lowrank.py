"""Against torch.linalg.svd in float64, a square root of the Gram by its eigenvectors, and planted decompositions."""

import json

import pytest
import torch

from tasks.calibrate.observers import InputGram, InputNorm
from tasks.model.anatomy import before_each, dissect
from tasks.model.load import load_model, load_tokenizer
from tasks.prune import PRUNERS
from tasks.prune.factors import merge
from tasks.prune.weight.lowrank import LowRank, factorise
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import NM, Unstructured, parse_pattern
from tasks.prune.weight.sparsegpt import SparseGPT
from tasks.prune.weight.wanda import Wanda

SHAPES = [(24, 24), (40, 24), (24, 40)]


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def correlated(inputs, tokens=400, directions=4):
    """Inputs that mostly lie in a few directions, of different norms, one of them dead."""
    x_TI = random(tokens, directions, seed=1) @ random(directions, inputs, seed=2) + 0.3 * random(
        tokens, inputs, seed=3
    )
    x_TI *= (0.3 * random(inputs, seed=4)).exp()
    x_TI[:, 5] = 0
    return x_TI


def gram(x_TI):
    stat = InputGram(x_TI.shape[1], "cpu")
    stat.update(x_TI)
    return stat


def output_error(merged_OI, weight_OI, x_TI):
    return ((merged_OI - weight_OI) @ x_TI.T).square().sum().item() / (weight_OI @ x_TI.T).square().sum().item()


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


def planted():
    """Eight large weights a row on top of a product of rank 4 that has none."""
    chosen_OI = torch.rand(64, 64, generator=torch.Generator().manual_seed(7)).argsort(1) < 8
    sparse_OI = torch.where(chosen_OI, 5 * random(64, 64, seed=8).sign(), 0)
    return 0.3 * random(64, 4, seed=5) @ random(4, 64, seed=6), sparse_OI


def test_a_planted_sparse_part_and_product_are_found():
    low_OI, sparse_OI = planted()
    stat = gram(random(500, 64, seed=9))
    found = LowRank(share=0.4).decompose(low_OI + sparse_OI, stat, Magnitude(), Unstructured(0.7))
    assert found.rank == 4
    assert (found.sparse_OI[sparse_OI != 0] != 0).all()  # 11 of 64 are kept in each row, these 8 among them
    assert found.error < 0.02 * found.alone_error
    assert found.error < 1e-3
    assert found.size_bytes <= 64 * 64 * 8 * 0.3 + 64 * 64 / 8 + 64 * 8  # 20 of 64 kept, which is 70 % rounded to whole


@pytest.mark.parametrize("pruner", [Magnitude(), Wanda(), SparseGPT()], ids=["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("pattern", ["50%", "70%", "50%@matrix", "2:4", "4:8"])
def test_it_beats_the_pattern_alone_in_no_more_bytes(pruner, pattern):
    weight_OI, x_TI = random(96, 64), correlated(64)
    stat, pattern = gram(x_TI), parse_pattern(pattern)
    alone_OI = pruner.prune(weight_OI, stat, pattern)
    found = LowRank().decompose(weight_OI, stat, pruner, pattern)
    assert found.rank >= 1
    assert found.alone_error == pytest.approx(output_error(alone_OI, weight_OI, x_TI))
    assert found.error == pytest.approx(output_error(found.merged_OI(), weight_OI, x_TI), rel=1e-6)
    assert found.error < 0.95 * found.alone_error
    left_behind = found.sparse_OI == 0
    assert left_behind.double().mean() == pytest.approx(found.pattern.sparsity, abs=0.02)
    bitmask_bytes = 96 * 64 // 8
    kept_alone = (alone_OI != 0).sum() * 8
    assert found.size_bytes <= kept_alone + bitmask_bytes


def test_white_inputs_and_weights_leave_the_pattern_alone():
    """Nothing of rank 1 stands out, so factors are a loss, and the result is the pruner's own."""
    weight_OI, stat = random(64, 64), gram(torch.eye(64, dtype=torch.float64))
    found = LowRank().decompose(weight_OI, stat, Magnitude(), Unstructured(0.5))
    assert found.rank == 0
    assert found.left_Or.shape == (64, 0)
    assert torch.equal(found.merged_OI(), Magnitude().prune(weight_OI, None, Unstructured(0.5)))
    assert found.error == found.alone_error
    assert found.pattern == Unstructured(0.5)


def test_more_rounds_are_never_worse_and_the_same_call_gives_the_same_bits():
    weight_OI, stat = random(96, 64, dtype=torch.float32), gram(correlated(64).float())
    errors = []
    for rounds in (1, 2, 5, 20):
        found, again = (LowRank(rounds=rounds).decompose(weight_OI, stat, Wanda(), Unstructured(0.5)) for _ in range(2))
        assert torch.equal(found.merged_OI(), again.merged_OI())
        errors.append(found.error)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]


def test_the_weight_stays_as_it_is():
    weight_OI, stat = random(96, 64), gram(correlated(64))
    LowRank().decompose(weight_OI, stat, SparseGPT(), NM(2, 4))
    assert torch.equal(weight_OI, random(96, 64))


def test_bad_settings_and_arguments_are_named():
    for settings, said in (
        ({"share": 0.0}, "share: 0.0 given, valid is between 0 and 1"),
        ({"share": 1.0}, "share: 1.0 given"),
        ({"damp": -1.0}, "damp: -1.0 given"),
        ({"rounds": 0}, "rounds: 0 given, valid is 1 or more"),
    ):
        with pytest.raises(ValueError, match=said):
            LowRank(**settings)
    norms = InputNorm(64, "cpu")
    norms.update(correlated(64))
    with pytest.raises(ValueError, match="stat: InputNorm given, LowRank needs InputGram"):
        LowRank().decompose(random(96, 64), norms, Wanda(), NM(2, 4))
    with pytest.raises(ValueError, match="weight: NaN or infinity"):
        LowRank().decompose(random(96, 64) / 0, gram(correlated(64)), Wanda(), NM(2, 4))
    with pytest.raises(ValueError, match="3:5 does not divide 64 inputs"):
        LowRank().decompose(random(96, 64), gram(correlated(64)), Wanda(), NM(3, 5))


@pytest.fixture(scope="module")
def real(shared):
    """Two linears of a real model as (weight, Gram of 24 windows, Gram of 12 others)."""
    folder = shared / "models/stories3M"
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    lines = (shared / "text/tinystories_train_sample.jsonl").read_text(encoding="utf-8").splitlines()[:200]
    ids = torch.tensor([i for line in lines for i in tokenizer(json.loads(line)["text"])["input_ids"]])
    linears = {name: dissect(model).linears(3)[name] for name in ("self_attn.q_proj", "mlp.up_proj")}
    stats = [{name: InputGram(192, "cpu") for name in linears} for _ in range(2)]
    for part, windows in zip(stats, ids[: 36 * 256].view(36, 256).split([24, 12]), strict=True):
        with torch.no_grad(), before_each(linears, lambda name, x, part=part: part[name].update(x.flatten(0, 1))):
            model(windows)
    return [(linears[name].weight.detach(), stats[0][name], stats[1][name]) for name in linears]


@pytest.mark.parametrize("name", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("pattern", [Unstructured(0.5), NM(2, 4)])
def test_on_real_linears_it_beats_the_pattern_alone_also_on_other_text(real, name, pattern):
    for weight_OI, stat, other in real:
        found = LowRank().decompose(weight_OI, stat, PRUNERS[name](), pattern)
        assert found.error < 0.95 * found.alone_error
        alone_OI = PRUNERS[name]().prune(weight_OI, stat, pattern)
        together, alone = (other.output_energy(each - weight_OI) for each in (found.merged_OI(), alone_OI))
        assert together < 0.95 * alone
