"""The formulas against the golden numbers, and what all pruners have in common."""

from dataclasses import dataclass

import pytest
import torch

from tasks.prune import PRUNERS
from tasks.prune.weight.clearcut import ClearCut
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import Unstructured, parse_pattern
from tasks.prune.weight.pruner import ScorePruner
from tasks.prune.weight.ria import RIA
from tasks.prune.weight.sparsegpt import SparseGPT
from tasks.prune.weight.wanda import Wanda
from tests.golden import NORMS, WEIGHT
from tests.prune.weight import textbook

GOLDEN = {
    (Magnitude, "2:4"): "10101001 00111100 11000011 01010110",
    (Magnitude, "1:4"): "10001000 00010100 01000001 00010010",
    (Magnitude, "50%"): "10101001 00111100 01000111 11010010",
    (Magnitude, "50%@matrix"): "10101001 00011100 01000111 11010110",
    (Wanda, "2:4"): "10101100 01101100 11000101 11000110",
    (Wanda, "1:4"): "10001000 01000100 01000100 01000100",
    (Wanda, "50%"): "10001101 01101100 01001101 11010100",
    (Wanda, "50%@matrix"): "10101101 01001100 01001101 11010100",
}
RELATIVE = {
    "2:4": "10101001 01101100 11000101 01010110",
    "1:4": "00101000 00100100 01000100 01000100",
    "50%": "10101001 01101100 01000111 11010100",
    "50%@matrix": "10101001 01101100 01000101 11010110",
}
GOLDEN |= {(method, pattern): kept for method in (RIA, ClearCut) for pattern, kept in RELATIVE.items()}
PATTERNS = ["2:4", "1:4", "3:4", "4:8", "8:16", "16:32", "50%", "50%@matrix", "70%", "0%"]
REFERENCES = {name: getattr(textbook, name) for name in ("magnitude", "wanda", "ria", "clearcut")}


def bits(weight_OI):
    return " ".join("".join("1" if value else "0" for value in row) for row in (weight_OI != 0).tolist())


def seen(pruner, x_TI):
    if pruner.observes is None:
        return None
    stat = pruner.observes(x_TI.shape[1], x_TI.device)
    stat.update(x_TI)
    return stat


def case(outputs=24, inputs=64, tokens=200, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    mix_II = torch.eye(inputs) + torch.randn(inputs, inputs, generator=generator) / inputs**0.5
    weight_OI = torch.randn(outputs, inputs, generator=generator)
    return weight_OI.to(dtype), (torch.randn(tokens, inputs, generator=generator) @ mix_II).to(dtype)


@pytest.mark.parametrize(("method", "pattern"), GOLDEN, ids=str)
def test_golden_keeps(method, pattern):
    pruned_OI = method().prune(WEIGHT, seen(method(), torch.diag(NORMS)), parse_pattern(pattern))
    assert bits(pruned_OI) == GOLDEN[method, pattern]
    assert torch.equal(pruned_OI[pruned_OI != 0], WEIGHT[pruned_OI != 0])


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_score_methods_equal_their_textbook(name, pattern):
    weight_OI, x_TI = case()
    pruner = PRUNERS[name]()
    pruned_OI = pruner.prune(weight_OI, seen(pruner, x_TI), parse_pattern(pattern))
    assert torch.equal(pruned_OI, REFERENCES[name](weight_OI, x_TI, parse_pattern(pattern)))


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_counts_dtype_and_no_change_in_place(name, pattern, dtype):
    weight_OI, x_TI = case(dtype=dtype)
    before, pruner = weight_OI.clone(), PRUNERS[name]()
    pruned_OI = pruner.prune(weight_OI, seen(pruner, x_TI), parse_pattern(pattern))
    assert pruned_OI.dtype == dtype
    assert pruned_OI.is_contiguous()
    assert torch.equal(weight_OI, before)
    parsed = parse_pattern(pattern)
    dropped = int(weight_OI.numel() * parsed.sparsity)
    if isinstance(parsed, Unstructured) and parsed.within == "row" and isinstance(pruner, ScorePruner):
        dropped = weight_OI.shape[0] * int(weight_OI.shape[1] * parsed.sparsity)
    assert (pruned_OI == 0).sum() == dropped
    if not isinstance(parsed, Unstructured):
        assert ((pruned_OI.reshape(-1, parsed.m) != 0).sum(1) == parsed.n).all()
    if isinstance(pruner, ScorePruner):
        assert torch.equal(pruned_OI[pruned_OI != 0], weight_OI[pruned_OI != 0])


@pytest.mark.parametrize("name", PRUNERS)
def test_scores_and_sums_are_float32_in_a_model_of_bfloat16(name):
    weight_OI, x_TI = case(dtype=torch.bfloat16)
    pruner = PRUNERS[name]()
    half = pruner.prune(weight_OI, seen(pruner, x_TI), parse_pattern("2:4"))
    full = pruner.prune(weight_OI.float(), seen(pruner, x_TI.float()), parse_pattern("2:4"))
    assert torch.equal(half, full.bfloat16())


def test_wandas_norms_ignore_sign_and_order():
    weight_OI, x_TI = case()
    one = Wanda().prune(weight_OI, seen(Wanda(), x_TI), parse_pattern("50%"))
    assert torch.equal(one, Wanda().prune(weight_OI, seen(Wanda(), -x_TI.flip(0)), parse_pattern("50%")))


@pytest.mark.parametrize("method", [RIA, ClearCut])
def test_a_dead_row_column_and_input_are_never_a_nan(method):
    weight_OI, x_TI = case()
    weight_OI[3], weight_OI[:, 5], x_TI[:, 7] = 0, 0, 0
    score_OI = method().score(weight_OI, seen(method(), x_TI))
    assert score_OI.isfinite().all()
    assert (score_OI[3] == 0).all()
    assert (score_OI[:, [5, 7]] == 0).all()


def test_clearcut_without_its_term_is_ria_and_an_exponent_of_zero_ignores_the_inputs():
    weight_OI, x_TI = case()
    stat = seen(RIA(), x_TI)
    assert torch.equal(ClearCut(alpha=0.0).score(weight_OI, stat), RIA().score(weight_OI, stat))
    assert torch.equal(RIA(a=0.0).score(weight_OI, stat), RIA(a=0.0).score(weight_OI, seen(RIA(), 3 * x_TI)))


@pytest.mark.parametrize("name", PRUNERS)
def test_bad_input_raises(name):
    weight_OI, x_TI = case()
    pruner, two_of_four = PRUNERS[name](), parse_pattern("2:4")
    stat = seen(pruner, x_TI)
    broken_OI = weight_OI.clone()
    broken_OI[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity among the weights"):
        pruner.prune(broken_OI, stat, two_of_four)
    with pytest.raises(ValueError, match="a matrix of floats is needed"):
        pruner.prune(weight_OI[0], stat, two_of_four)
    with pytest.raises(ValueError, match="a matrix of floats is needed"):
        pruner.prune(weight_OI.to(torch.int8), stat, two_of_four)
    with pytest.raises(ValueError, match="3:5 does not divide 64 inputs"):
        pruner.prune(weight_OI, stat, parse_pattern("3:5"))
    if pruner.observes is not None:
        with pytest.raises(
            ValueError, match=f"NoneType given, {type(pruner).__name__} needs {pruner.observes.__name__}"
        ):
            pruner.prune(weight_OI, None, two_of_four)
        with pytest.raises(ValueError, match="it saw 64 inputs, the weight has 32"):
            pruner.prune(weight_OI[:, :32], stat, two_of_four)
        with pytest.raises(ValueError, match="no tokens"):
            pruner.prune(weight_OI, pruner.observes(64, "cpu"), two_of_four)


def test_an_observer_that_knows_less_is_refused_and_one_that_knows_more_gives_the_same():
    weight_OI, x_TI = case()
    norm, gram = seen(Wanda(), x_TI), seen(SparseGPT(), x_TI)
    with pytest.raises(ValueError, match="InputNorm given, SparseGPT needs InputGram"):
        SparseGPT().prune(weight_OI, norm, parse_pattern("2:4"))
    for pruner in (Wanda(), RIA(), ClearCut()):
        assert torch.equal(pruner.score(weight_OI, norm), pruner.score(weight_OI, gram))


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        (SparseGPT, "damp", -1),
        (SparseGPT, "damp", float("nan")),
        (SparseGPT, "damp", float("inf")),
        (SparseGPT, "block", 0),
        (RIA, "a", -0.5),
        (ClearCut, "a", float("nan")),
        (ClearCut, "alpha", -1),
    ],
)
def test_hyper_parameters_are_checked(method, name, value):
    with pytest.raises(ValueError, match=f"^{name}: .* valid is"):
        method(**{name: value})


@dataclass(frozen=True, kw_only=True)
class Lax(Magnitude):
    """Says that it drops, and does not."""

    def _prune(self, weight_OI, stat, pattern):
        _, keep_OI = super()._prune(weight_OI, stat, pattern)
        return weight_OI.clone(), keep_OI


@pytest.mark.parametrize("pattern", ["2:4", "50%", "50%@matrix", "70%"])
def test_a_method_that_drops_too_few_is_refused(pattern):
    weight_OI, _ = case()
    with pytest.raises(ValueError, match=rf"weight: Lax\(\) left \d+ weights more than {pattern} allows"):
        Lax().prune(weight_OI, None, parse_pattern(pattern))


@dataclass(frozen=True, kw_only=True)
class Halved(Magnitude):
    """Gives back another shape."""

    def _prune(self, weight_OI, stat, pattern):
        return weight_OI[:, ::2], weight_OI[:, ::2] != 0


def test_a_method_that_gives_back_another_shape_is_refused():
    weight_OI, _ = case()
    with pytest.raises(ValueError, match=r"Halved\(\) made .*\(24, 32\), .*\(24, 64\) is needed"):
        Halved().prune(weight_OI, None, parse_pattern("2:4"))
