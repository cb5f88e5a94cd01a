import math

import pytest
import torch

from tasks.prune.packing import (
    Bitmask,
    Dense,
    Empty,
    Positions,
    as_integers,
    choose_packing,
    pack_numbers,
    packed_length,
    pattern_bytes,
    unpack_numbers,
)
from tasks.prune.weight.pattern import NM, Unstructured, parse_pattern

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
PAYING = ["1:2", "1:3", "1:4", "2:4", "1:8", "2:8", "1:16", "3:16", "4:16"]
OTHERS = ["3:4", "2:3", "4:8", "8:16", "16:32", "4:4"]


def matrix(pattern=None, dtype=torch.float32, shape=(24, 96), seed=0):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return weight if pattern is None else weight.masked_fill(~pattern.keep(weight.float().abs()), 0)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(as_integers(a), as_integers(b))


def there_and_back(packing, weight):
    parts = packing.pack(weight)
    stored = sum(part.numel() * part.itemsize for part in parts.values())
    assert stored == packing.size_bytes(weight)
    assert same_bits(packing.unpack(parts, tuple(weight.shape)), weight)
    return stored / (weight.numel() * weight.itemsize)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("text", PAYING + OTHERS)
def test_every_nm_comes_back_to_the_bit(text, dtype):
    pattern = parse_pattern(text)
    weight = matrix(pattern, dtype)
    if pattern.m <= 16:
        assert there_and_back(Positions(n=pattern.n, m=pattern.m), weight) > 0
    assert there_and_back(Bitmask(), weight) > 0
    assert there_and_back(choose_packing(weight, pattern), weight) <= 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.99, 1.0])
def test_every_sparsity_comes_back_to_the_bit(sparsity, dtype):
    for shape in ((7, 13), (1, 1), (16, 64)):  # also where the bits do not fill whole bytes
        weight = matrix(None, dtype, shape)
        weight[torch.rand(shape) < sparsity] = 0
        there_and_back(Bitmask(), weight)
        there_and_back(choose_packing(weight), weight)


@pytest.mark.parametrize("packing", [Dense(), Bitmask(), Positions(n=2, m=4)])
def test_negative_zero_and_strange_values_keep_their_bits(packing):
    weight = torch.tensor([[-0.0, 0.0, 0.0, math.inf], [0.0, 5e-42, -0.0, 0.0], [math.nan, 0.0, 0.0, 0.0]])
    there_and_back(packing, weight)


def test_known_sizes():
    half = matrix(NM(2, 4), torch.bfloat16)
    assert there_and_back(Positions(n=2, m=4), half) == 0.5625
    assert there_and_back(Bitmask(), half) == 0.5625
    assert there_and_back(Positions(n=1, m=4), matrix(NM(1, 4), torch.bfloat16)) == 0.28125
    assert there_and_back(Bitmask(), matrix(Unstructured(0.75), torch.bfloat16)) == 0.3125


@pytest.mark.parametrize("text", PAYING)
def test_positions_are_chosen_where_they_take_no_more_than_a_mask(text):
    pattern = parse_pattern(text)
    weight = matrix(pattern, torch.bfloat16)
    assert choose_packing(weight, pattern) == Positions(n=pattern.n, m=pattern.m)
    assert Positions(n=pattern.n, m=pattern.m).size_bytes(weight) <= Bitmask().size_bytes(weight)
    assert choose_packing(weight) == Bitmask()  # nobody said that it is n:m


@pytest.mark.parametrize("text", ["4:8", "8:16", "16:32"])
def test_a_mask_is_chosen_where_positions_take_more(text):
    pattern = parse_pattern(text)
    assert choose_packing(matrix(pattern, torch.bfloat16), pattern) == Bitmask()


def test_what_would_not_shrink_stays_dense():
    assert choose_packing(matrix()) == Dense()
    assert choose_packing(matrix(), NM(2, 4)) == Dense()
    assert choose_packing(matrix(NM(4, 4)), NM(4, 4)) == Dense()
    assert choose_packing(torch.zeros(64)) == Dense()
    assert choose_packing(torch.zeros(8, 8, dtype=torch.int64)) == Dense()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_matrix_of_zeros_takes_nothing(dtype):
    for shape in ((7, 13), (24, 96)):
        for pattern in (None, Unstructured(0.5), NM(2, 4) if shape[1] % 4 == 0 else None):
            zeros = torch.zeros(shape, dtype=dtype)
            assert choose_packing(zeros, pattern) == Empty()
            assert there_and_back(Empty(), zeros) == 0
    with pytest.raises(ValueError, match="3 values are stored, a matrix of zeros has none"):
        Empty().unpack({"values": torch.ones(3)}, (7, 13))
    assert choose_packing(-zeros) != Empty()  # -0.0 must come back as it is


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(24, 96), (7, 240), (129, 48)])
@pytest.mark.parametrize("text", [*PAYING, *OTHERS, "50%", "29%", "5%", "0%", "70%@matrix", "33.3%@matrix"])
def test_the_bytes_of_a_pattern_are_known_before(text, shape, dtype):
    pattern = parse_pattern(text)
    if not pattern.divides(shape[1]):
        return
    weight = matrix(pattern, dtype, shape)
    assert pattern_bytes(pattern, *shape, dtype.itemsize) == choose_packing(weight, pattern).size_bytes(weight)


def test_fewer_kept_than_n_is_legal():
    weight = matrix(NM(2, 4))
    weight[3] = 0
    weight[:, 5] = 0
    assert choose_packing(weight, NM(2, 4)) == Positions(n=2, m=4)
    there_and_back(Positions(n=2, m=4), weight)


def test_pruned_to_negative_zero_comes_back_as_it_was():
    weight = matrix() * NM(2, 4).keep(matrix().abs())  # multiplying leaves -0.0 behind
    assert (weight.signbit() & (weight == 0)).any()
    packing = choose_packing(weight, NM(2, 4))
    assert packing == Bitmask()
    there_and_back(packing, weight)


def test_a_group_too_full_is_named():
    weight = matrix(NM(2, 4))
    weight[5, 40:44] = torch.tensor([1.0, 2.0, 3.0, 0.0])
    weight[6] = 0
    with pytest.raises(ValueError, match="2:4 given, 3 of 4 kept at row 5, input 40"):
        choose_packing(weight, NM(2, 4))
    with pytest.raises(ValueError, match="2:4 does not divide 6 inputs"):
        choose_packing(torch.zeros(4, 6), NM(2, 4))


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_numbers_come_back(bits, count):
    numbers = torch.randint(0, 2**bits, (count,), dtype=torch.uint8)
    packed = pack_numbers(numbers, bits)
    assert len(packed) == packed_length(count, bits)
    assert torch.equal(unpack_numbers(packed, count, bits), numbers)


def test_the_order_of_bits_is_fixed():
    assert pack_numbers(torch.tensor([1, 0, 0, 0, 0, 0, 0, 1, 1], dtype=torch.uint8), 1).tolist() == [129, 1]
    assert pack_numbers(torch.tensor([3, 0, 1, 2], dtype=torch.uint8), 2).tolist() == [0b10_01_00_11]


def test_positions_end_at_sixteen():
    with pytest.raises(ValueError, match="16:32 given, positions are stored for"):
        Positions(n=16, m=32)


def test_damaged_parts_are_refused():
    shape = (24, 96)
    packing = Positions(n=2, m=4)
    good = packing.pack(matrix(NM(2, 4)))
    falling = pack_numbers(torch.tensor([1, 0] * 576, dtype=torch.uint8), 2)
    for said, damage in (
        ("do not rise", {"positions": falling}),
        ("do not rise", {"positions": torch.zeros_like(falling)}),
        ("bytes are needed", {"positions": falling[:-1]}),
        ("1151 values are stored, 576 groups need 1152", {"values": good["values"][:-1]}),
    ):
        with pytest.raises(ValueError, match=said):
            packing.unpack(good | damage, shape)
    with pytest.raises(ValueError, match="do not rise within 0 to 2"):
        Positions(n=1, m=3).unpack(
            {"values": torch.ones(4), "positions": torch.tensor([255], dtype=torch.uint8)}, (4, 3)
        )
    masked = Bitmask().pack(matrix(NM(2, 4)))
    with pytest.raises(ValueError, match="the mask keeps 1152 values, 1151 are stored"):
        Bitmask().unpack(masked | {"values": masked["values"][:-1]}, shape)
    with pytest.raises(ValueError, match="bytes are needed"):
        Bitmask().unpack(masked | {"mask": masked["mask"][:-1]}, shape)
