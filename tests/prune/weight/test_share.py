"""The bytes that are promised, held against matrices that are really pruned and packed."""

import pytest
import torch

from tasks.prune.packing import choose_packing
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import NM, Unstructured, parse_pattern
from tasks.prune.weight.share import budget_rank, check_rank, largest_rank, share_out
from tasks.prune.weight.sparsegpt import SparseGPT

SHAPES = [(64, 64), (96, 48), (48, 1024), (129, 336)]


def packed_bytes(shape, pattern, dtype):
    weight_OI = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    pruned_OI = Magnitude().prune(weight_OI, None, pattern)
    packing = choose_packing(pruned_OI, pattern)
    return sum(part.numel() * part.itemsize for part in packing.pack(pruned_OI).values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("text", ["50%", "62.5%@matrix", "29%", "70%", "2:4", "4:8", "3:16", "8:16"])
def test_both_parts_fit_into_what_the_pattern_takes_and_fill_it(text, share, shape, dtype):
    pattern = parse_pattern(text)
    outputs, inputs = shape
    split = share_out(pattern, share, outputs, inputs, dtype.itemsize)
    rank_bytes = (outputs + inputs) * dtype.itemsize
    assert split.budget_bytes == packed_bytes(shape, pattern, dtype)
    taken = packed_bytes(shape, split.pattern, dtype) + split.rank * rank_bytes
    assert taken <= split.budget_bytes
    check_rank(split.rank, outputs, inputs)
    if isinstance(pattern, Unstructured):
        assert split.pattern.within == pattern.within
        assert split.rank == int(share * split.budget_bytes / rank_bytes)
        more_a_row = (outputs + -(-inputs // 128)) * dtype.itemsize  # one weight a row, and what SparseGPT may round up
        assert taken + more_a_row + 1e-6 * outputs * inputs * dtype.itemsize >= split.budget_bytes
    else:
        assert split.pattern.m == pattern.m
        assert taken + rank_bytes > split.budget_bytes


def test_a_matrix_worked_by_hand():
    """1024 x 1024 in 16 bits: 2:4 and 50 % take 1,179,648 bytes, a rank 4096."""
    split = share_out(Unstructured(0.5), 0.25, 1024, 1024)
    assert split.budget_bytes == 1_179_648
    assert split.rank == 72  # 294,912 / 4096
    # 1,179,648 - 294,912 - 131,072 of the mask, over 2 x 1024, is 368 a row; 8 weights are held back, so 367
    assert int(1024 * split.pattern.sparsity) == 1024 - 367
    assert share_out(NM(2, 4), 0.25, 1024, 1024).pattern == NM(1, 4)
    assert share_out(NM(2, 4), 0.25, 1024, 1024).rank == 144  # half of the bytes: 1:4 takes the other half
    split = share_out(NM(4, 8), 0.25, 1024, 1024)
    assert (split.pattern, split.rank) == (NM(3, 8), 64)  # 262,144 / 4096: 0.22 of the bytes; 2:8 would leave 0.44
    assert share_out(NM(4, 8), 0.4, 1024, 1024).pattern == NM(2, 8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sparsity", [0.5, 0.63, 0.7])
def test_sparsegpt_which_counts_in_blocks_fits_too(shape, sparsity):
    outputs, inputs = shape
    split = share_out(Unstructured(sparsity), 0.25, outputs, inputs, 4)
    weight_OI = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    stat = SparseGPT.observes(inputs, "cpu")
    stat.update(torch.randn(200, inputs, generator=torch.Generator().manual_seed(1)))
    pruned_OI = SparseGPT().prune(weight_OI, stat, split.pattern)
    assert choose_packing(pruned_OI).size_bytes(pruned_OI) + 4 * split.rank * (outputs + inputs) <= split.budget_bytes


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2), (24, 40), (192, 512)])
def test_the_largest_rank_is_the_last_one_that_saves_a_number(shape):
    outputs, inputs = shape
    saving = [rank for rank in range(outputs * inputs + 1) if rank * (outputs + inputs) < outputs * inputs]
    assert largest_rank(outputs, inputs) == saving[-1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("text", ["50%", "29%", "70%@matrix", "2:4", "8:16"])
def test_the_rank_of_a_budget_is_the_largest_that_fits(text, shape, dtype):
    pattern, rank_bytes = parse_pattern(text), sum(shape) * dtype.itemsize
    rank, budget = budget_rank(pattern, *shape, dtype.itemsize), packed_bytes(shape, pattern, dtype)
    assert rank * rank_bytes <= budget < (rank + 1) * rank_bytes
    check_rank(rank, *shape)


def test_what_cannot_be_shared_out_is_refused():
    for arguments, said in (
        ((Unstructured(0.05), 0.25, 64, 64), "pattern: 5% saves no bytes of 64 x 64"),
        ((NM(4, 4), 0.25, 64, 64), "pattern: 4:4 saves no bytes"),
        ((NM(1, 4), 0.25, 64, 64), "pattern: 1:4 given, no n:4 below it leaves 64 x 64 the bytes of rank 1"),
        ((NM(2, 4), 0.25, 2, 4), "pattern: 2:4 given, no n:4 below it leaves 2 x 4 the bytes of rank 1"),
        ((Unstructured(0.5), 0.01, 64, 64), "share: 0.01 given, rank 1 of 64 x 64 needs 0.0556 of 50%"),
        ((Unstructured(0.5), 0.95, 64, 64), "share: the factors leave 256 bytes of 64 x 64, too few for a sparse part"),
    ):
        with pytest.raises(ValueError, match=said):
            share_out(*arguments)
