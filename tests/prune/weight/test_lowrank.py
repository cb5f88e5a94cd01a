"""Planted decompositions, the pattern alone in the same bytes, and factors that are found exactly in every round."""

import json

import pytest
import torch

from tasks.calibrate.observers import InputGram, InputNorm
from tasks.model.anatomy import before_each, dissect
from tasks.model.load import load_model, load_tokenizer
from tasks.prune import PRUNERS
from tasks.prune.weight import lowrank
from tasks.prune.weight.lowrank import LowRank
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import NM, Unstructured, parse_pattern
from tasks.prune.weight.share import share_out
from tasks.prune.weight.sparsegpt import SparseGPT
from tasks.prune.weight.wanda import Wanda


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


@pytest.mark.parametrize("pattern", ["50%", "2:4"])
@pytest.mark.parametrize("pruner", [Magnitude(), Wanda()], ids=["magnitude", "wanda"])
def test_the_factors_of_every_round_are_as_good_as_exact_ones(pruner, pattern):
    """For the zeros of that round; 1e-3 is what may be lost, 1e-4 what is."""
    weight_OI, stat = random(96, 64), gram(correlated(64))
    split, root_II = share_out(parse_pattern(pattern), 0.25, 96, 64, 8), stat.root_II(0.01)
    rounds = list(LowRank()._rounds(weight_OI, stat, pruner, split.pattern, split.rank))
    assert len(rounds) == 20
    for sparse_OI, left_Or, right_rI in rounds:
        rest_OI = (weight_OI - sparse_OI) @ root_II
        found = (rest_OI - left_Or @ right_rI @ root_II).square().sum().item()
        exact = torch.linalg.svdvals(rest_OI)[split.rank :].square().sum().item()
        assert exact * (1 - 1e-9) <= found <= exact * (1 + 1e-4)


@pytest.mark.parametrize("shape", [(24, 24), (40, 24), (24, 40)])
def test_a_turn_never_loses_and_settles_at_the_first_singular_vectors(shape, monkeypatch):
    matrix_OI, root_II = random(*shape), random(shape[1], shape[1], seed=4).triu()
    values = torch.linalg.svdvals(matrix_OI @ root_II).square()
    held = [0.0]
    for settled in (10.0, 1.0, 0.1, 1e-3, 1e-6, 1e-12):
        monkeypatch.setattr(lowrank, "SETTLED", settled)
        basis_Or = lowrank.turn(torch.linalg.qr(random(shape[0], 5, seed=3)).Q, matrix_OI, root_II)
        torch.testing.assert_close(basis_Or.T @ basis_Or, torch.eye(5, dtype=torch.float64))
        held.append(float((basis_Or.T @ matrix_OI @ root_II).square().sum()))
    assert held == sorted(held)
    assert held[1] < 0.98 * held[-1]
    assert held[-1] == pytest.approx(values[:5].sum().item(), rel=1e-8)


def test_what_is_of_low_rank_settles_though_nothing_is_left_out():
    matrix_OI = random(40, 5, seed=1) @ random(5, 24, seed=2)
    basis_Or = lowrank.turn(torch.linalg.qr(random(40, 5, seed=3)).Q, matrix_OI, torch.eye(24))
    torch.testing.assert_close(basis_Or @ basis_Or.T @ matrix_OI, matrix_OI)


def test_a_weight_that_is_pruned_already_is_refused():
    pruned_OI, stat = Magnitude().prune(random(96, 64), None, NM(2, 4)), gram(correlated(64))
    with pytest.raises(ValueError, match=r"weight: 50\.0% of it is zero, .* give the dense model"):
        LowRank().decompose(pruned_OI, stat, Wanda(), NM(2, 4))


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
    with pytest.raises(ValueError, match="pruner: none given, LowRank needs one"):
        LowRank().decompose(random(96, 64), gram(correlated(64)), None, NM(2, 4))
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


def test_a_turn_ends_on_what_is_no_number():
    matrix_OI = random(40, 24)
    matrix_OI[0, 0] = torch.nan
    lowrank.turn(torch.linalg.qr(random(40, 5)).Q, matrix_OI, torch.eye(24))
