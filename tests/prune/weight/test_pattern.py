import pytest
import torch

from tasks.prune import PATTERNS
from tasks.prune.weight import selection
from tasks.prune.weight.pattern import NM, Unstructured, parse_pattern
from tests.prune.weight import textbook

NMS = [NM(1, 4), NM(2, 4), NM(3, 4), NM(4, 8), NM(8, 16), NM(16, 32), NM(2, 3), NM(1, 1), NM(4, 4)]
SHARES = [Unstructured(share, within) for share in (0, 0.1, 0.5, 0.7, 0.99) for within in ("row", "matrix")]


def scores(kind, outputs=6, inputs=96, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    score_OI = torch.rand(outputs, inputs, generator=generator)
    if kind == "tied":
        score_OI = (score_OI * 4).round()
    if kind == "equal":
        score_OI = torch.ones(outputs, inputs)
    return score_OI.to(dtype)


@pytest.mark.parametrize("pattern", NMS + SHARES, ids=str)
@pytest.mark.parametrize("kind", ["distinct", "tied", "equal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_keeps_what_a_full_sort_keeps(pattern, kind, dtype):
    score_OI = scores(kind, dtype=dtype)
    assert torch.equal(pattern.keep(score_OI), textbook.keep(score_OI.double(), pattern))


@pytest.mark.parametrize("pattern", NMS + SHARES, ids=str)
@pytest.mark.parametrize("kind", ["distinct", "tied", "equal"])
def test_on_a_gpu_the_same_is_kept(pattern, kind, monkeypatch):
    """Its code runs on any device; here on the CPU."""
    score_OI = scores(kind)
    expected = pattern.keep(score_OI)
    monkeypatch.setattr(
        selection, "_in_numpy", lambda score, count: selection._on_device(torch.tensor(score), count).numpy()
    )
    assert torch.equal(pattern.keep(score_OI), expected)


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(8, 16), Unstructured(0.5), Unstructured(0.5, "matrix")], ids=str)
def test_chunks_do_not_show(pattern, monkeypatch):
    score_OI = scores("tied")
    expected = pattern.keep(score_OI)
    monkeypatch.setattr(selection, "CHUNK", 100)
    assert torch.equal(pattern.keep(score_OI), expected)


def test_any_layout_and_gradients_are_taken():
    score_OI = scores("distinct")
    assert torch.equal(NM(2, 4).keep(score_OI.T.contiguous().T), NM(2, 4).keep(score_OI))
    assert torch.equal(NM(2, 4).keep(score_OI.clone().requires_grad_()), NM(2, 4).keep(score_OI))
    assert Unstructured(0.5).keep(torch.empty(0, 8)).shape == (0, 8)


@pytest.mark.parametrize(("size", "share", "dropped"), [(10, 0.7, 7), (100, 0.29, 28), (7, 0.5, 3), (3, 0.2, 0)])
def test_int_of_n_times_sparsity_is_dropped(size, share, dropped):
    assert (~Unstructured(share).keep(torch.rand(2, size))).sum(1).tolist() == [dropped] * 2


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("pattern", [NM(2, 4), Unstructured(0.5)], ids=str)
def test_nan_and_infinity_raise(bad, pattern):
    score_OI = scores("distinct")
    score_OI[2, 3] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        pattern.keep(score_OI)


def test_inputs_that_are_not_divided_raise():
    with pytest.raises(ValueError, match="2:4 does not divide 6 inputs"):
        NM(2, 4).keep(torch.rand(2, 6))
    with pytest.raises(ValueError, match="outputs, inputs"):
        NM(2, 4).keep(torch.rand(8))


@pytest.mark.parametrize("pattern", NMS + SHARES + [Unstructured(1 / 3), Unstructured(0.07, "matrix")], ids=str)
def test_text_reads_back(pattern):
    assert parse_pattern(str(pattern)) == pattern


def test_texts():
    assert [str(parse_pattern(text)) for text in ("2:4", "50%", "62.5%", "50.0%@matrix")] == [
        "2:4",
        "50%",
        "62.5%",
        "50%@matrix",
    ]
    assert parse_pattern("7%").sparsity == 0.07
    assert NM(2, 4).sparsity == 0.5
    assert set(PATTERNS.values()) == {NM, Unstructured}


@pytest.mark.parametrize("text", ["", "2:", "5:4", "0:4", "100%", "-5%", "50", "50%@row", "2:4:8", "half", "nan%"])
def test_what_is_not_a_pattern_is_told_in_one_line(text):
    with pytest.raises(ValueError, match="use n:m with 1 <= n <= m") as error:
        parse_pattern(text)
    assert repr(text) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "make", [lambda: Unstructured(1.0), lambda: Unstructured(-0.1), lambda: Unstructured(0.5, "column")]
)
def test_values_outside_are_told(make):
    with pytest.raises(ValueError, match="valid is"):
        make()


@pytest.mark.parametrize("pattern", NMS + SHARES, ids=str)
def test_what_is_kept_has_no_surplus_and_every_weight_more_is_one(pattern):
    score_OI = scores("distinct") + 1
    keep_OI = pattern.keep(score_OI)
    assert pattern.surplus(score_OI * keep_OI) == 0
    assert pattern.surplus(torch.zeros_like(score_OI)) == 0
    dropped = (~keep_OI).nonzero()
    for count in (1, 3, len(dropped)):
        fuller_OI = keep_OI.clone()
        fuller_OI[tuple(dropped[:count].T)] = True
        assert pattern.surplus(score_OI * fuller_OI) == min(count, len(dropped))


def test_more_zeros_in_one_row_do_not_make_up_for_another():
    weight_OI = torch.ones(2, 10)
    weight_OI[0] = 0
    assert Unstructured(0.5).surplus(weight_OI) == 5
    assert Unstructured(0.5, "matrix").surplus(weight_OI) == 0
