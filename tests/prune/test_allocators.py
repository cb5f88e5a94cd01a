import json
import math

import pytest
import torch

from tasks.calibrate.importance.outliers import outlier_ratios
from tasks.model.anatomy import dissect
from tasks.prune.allocation import Allocation
from tasks.prune.allocators import ALLOCATIONS, OWL, Given, Uniform, block_sizes, from_file, owl_sparsities
from tasks.prune.weight.pattern import NM, Unstructured
from tests.cases import batches, llama

HALF = Unstructured(0.5)


@pytest.mark.parametrize(
    ("ratios", "sizes", "expected"),
    [
        ([0.01, 0.02, 0.03], [10, 10, 10], [0.58, 0.5, 0.42]),
        ([0.03, 0.01], [10, 10], [0.42, 0.58]),
        ([0.02, 0.02], [10, 10], [0.5, 0.5]),
        # 0.58, 0.58 - 0.16 / 3 and 0.42 are 0.08 / 3 too much in all; the last is at its end, the others give half each
        ([1, 2, 4], [7, 7, 7], [0.58 - 0.04 / 3, 0.58 - 0.2 / 3, 0.42]),
        # the block of half the weights has no outliers: 0.58 and 0.42 need no move, sizes 1 + 1 against 2
        ([0, 5, 5], [2, 1, 1], [0.58, 0.42, 0.42]),
        # sizes 3 against 1: 0.58 * 3 + 0.42 is 0.16 too much, and only the large one can give: 0.16 / 3
        ([0, 5], [3, 1], [0.58 - 0.16 / 3, 0.42]),
    ],
)
def test_owl_by_hand(ratios, sizes, expected):
    found = owl_sparsities(ratios, sizes, 0.5, 0.08)
    assert found == pytest.approx(expected, abs=1e-15)
    mean = sum(share * size for share, size in zip(found, sizes, strict=True)) / sum(sizes)
    assert mean == pytest.approx(0.5, abs=1e-15)


@pytest.mark.parametrize("seed", range(50))
def test_owl_keeps_its_interval_its_mean_and_the_order_of_the_ratios(seed):
    generator = torch.Generator().manual_seed(seed)
    ratios = torch.rand(8, generator=generator, dtype=torch.float64).pow(3).tolist()
    sizes = torch.randint(1, 1000, (8,), generator=generator).tolist()
    shares = owl_sparsities(ratios, sizes, 0.7, 0.08)
    assert 0.62 - 1e-15 <= min(shares) < max(shares) <= 0.78 + 1e-15
    mean = math.fsum(share * size for share, size in zip(shares, sizes, strict=True)) / sum(sizes)
    assert mean == pytest.approx(0.7, abs=1e-14)
    by_ratio = [share for _, share in sorted(zip(ratios, shares, strict=True))]
    assert by_ratio == sorted(shares, reverse=True)


def test_owl_prunes_a_block_with_planted_outliers_less():
    model = llama()
    linears = dissect(model).linears(1)
    with torch.no_grad():
        for linear in linears.values():
            linear.weight[:, 0] *= 30
    ratios = outlier_ratios(model, batches())
    assert max(ratios) == ratios[1]
    first, planted, last = OWL().allocate(model, HALF, batches()).sparsities
    assert planted == 0.42 < min(first, last)
    assert first + planted + last == pytest.approx(1.5)


def test_uniform_and_given_look_at_no_window():
    assert Uniform().allocate(llama(), NM(1, 4)).sparsities == (0.75,) * 3
    assert Given(sparsities=(0.1, 0.2, 0.3)).allocate(llama(), HALF).sparsities == (0.1, 0.2, 0.3)
    assert block_sizes(llama()) == [2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 64] * 3
    with pytest.raises(ValueError, match="batches: none given"):
        OWL().allocate(llama(), HALF)


def test_the_methods_by_name_are_built_from_their_defaults():
    assert {name: kind() for name, kind in ALLOCATIONS.items()} == {"uniform": Uniform(), "owl": OWL()}
    assert (OWL().threshold, OWL().spread) == (5.0, 0.08)


def test_owl_refuses_what_it_cannot_do_before_it_observes():
    for make, message in [
        (lambda: OWL(threshold=0), r"^threshold: 0 given, valid is above 0$"),
        (lambda: OWL(spread=0), r"^spread: 0 given, valid is 0 < spread < 0.5$"),
        (lambda: OWL().check(Unstructured(0.95)), r"^spread: 0.08 given, but 0.95 ± spread, 95% being the pattern"),
        (lambda: OWL().check(Unstructured(0.05)), r"^spread: 0.08 given, but 0.05 ± spread, 5% being the pattern"),
        (
            lambda: OWL().allocate(llama(), NM(2, 4), None),
            r"leaves every block at 2:4; valid is 0.125 or more, half a step of the pattern, as in owl,spread=0.125$",
        ),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            make()
        assert "\n" not in str(error.value)
    OWL().check(NM(4, 8))
    OWL(spread=0.125).check(NM(2, 4))


@pytest.mark.parametrize(
    ("content", "expected"),
    [([0.4, 0, 0.99], (0.4, 0.0, 0.99)), ({"0": 0.4, "1": 0.6}, (0.4, 0.6)), ({"1": 0.6, "0": 0.4}, (0.4, 0.6))],
)
def test_a_file_gives_one_sparsity_per_block(tmp_path, content, expected):
    path = tmp_path / "blocks.json"
    path.write_text(json.dumps(content))
    assert from_file(path) == Given(sparsities=expected)
    assert from_file(str(path)) == from_file(path)


def test_a_file_may_give_attention_and_ffn_apart(tmp_path):
    path = tmp_path / "blocks.json"
    path.write_text('{"1": {"ffn": 0.5, "attention": 0.7}, "0": {"attention": 0.4, "ffn": 0.6}}')
    given = from_file(path)
    assert given == Given(sparsities=(0.4, 0.7), ffn=(0.6, 0.5))
    assert given.allocate(llama(), HALF) == Allocation(sparsities=(0.4, 0.7), ffn=(0.6, 0.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[0.4, 0.6", "cannot be read"),
        ("\xff\xfe", "cannot be read"),
        ("0.5", "0.5 given in"),
        ('"owl"', '"owl" given in'),
        ("[]", "no block given in"),
        ("{}", "no block given in"),
        ('{"0": 0.4, "2": 0.6}', "block 1 given 0 times among 2 blocks, valid is once each"),
        ('{"0": 0.4, "0": 0.6}', "block 0 given 2 times among 2 blocks"),
        ('{"0": 0.4, "one": 0.6}', "block 1 given 0 times among 2 blocks"),
        ("[0.4, 1]", "1 given for block 1 in .*, valid is 0 <= sparsity < 1"),
        ("[0.4, -0.1]", "-0.1 given for block 1"),
        ("[0.4, NaN]", "NaN given for block 1"),
        ("[0.4, Infinity]", "Infinity given for block 1"),
        ("[0.4, true]", "true given for block 1"),
        ('[0.4, "0.6"]', '"0.6" given for block 1'),
        ("[null, 0.4]", "null given for block 0"),
        ('{"0": {"attention": null, "ffn": 0.4}}', "null given for block 0"),
        ('[{"attention": {"a": 1}, "ffn": 0.4}]', '{"a": 1} given for block 0'),
        ("[0.4, [0.6]]", "given for block 1"),
        ('[{"attention": 0.4, "ffn": 0.6}, 0.4]', "0.4 given for block 1 in .*, others have attention and ffn apart"),
        ('[{"attention": 0.4}]', '{"attention": 0.4} given for block 0 in .*, others have attention and ffn apart'),
        ('[{"attention": 0.4, "ffn": 1}]', "1 given for block 0 in .*, valid is 0 <= sparsity < 1"),
        (f"[0.4, 1{'0' * 400}]", "given for block 1"),
        pytest.param("[" * 99999, "cannot be read", id="deep"),
    ],
)
def test_what_is_no_such_file_is_told_in_one_line(tmp_path, text, message):
    path = tmp_path / "blocks.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=f"^allocation: .*{message}") as error:
        from_file(path)
    assert "\n" not in str(error.value)
    with pytest.raises(
        ValueError, match=r"^allocation: '.*absent' given, which cannot be read .*valid is uniform, owl,"
    ):
        from_file(tmp_path / "absent")
