"""The `count` largest of each group, exactly, without sorting.

On the CPU it is done in NumPy, whose comparisons and partial selection use AVX2 or AVX-512, in chunks that stay in the
cache. Small groups (2:4, 4:8): each element is compared with each other one, for all groups at once. Large ones (16:32,
a row, a whole matrix): the smallest value that stays is found by partial selection, and equal values are counted off.

Axes: G groups that are compared within themselves, N elements of a group.
"""

import numpy as np
import torch
from torch import Tensor

COMPARED = 8  # up to this size comparing all pairs beats partial selection
CHUNK = 1 << 17  # elements


def keep_largest(score_GN: Tensor, count: int) -> Tensor:
    """bool: exactly `count` in each row; of equal scores the one with the lower index. Scores must be finite."""
    if count == score_GN.shape[1]:
        return torch.ones_like(score_GN, dtype=torch.bool)
    if score_GN.dtype not in (torch.float32, torch.float64):
        score_GN = score_GN.float()
    if score_GN.device.type != "cpu":
        return _on_device(score_GN, count)
    return torch.from_numpy(_in_numpy(score_GN.numpy(), count))


def _in_numpy(score_GN: np.ndarray, count: int) -> np.ndarray:
    groups, size = score_GN.shape
    keep_GN = np.empty((groups, size), dtype=bool)
    select = _by_comparison if size <= COMPARED else _by_threshold
    step = max(1, CHUNK // size)
    for start in range(0, groups, step):
        select(score_GN[start : start + step], count, keep_GN[start : start + step])
    return keep_GN


def _by_comparison(score_GN: np.ndarray, count: int, keep_GN: np.ndarray) -> None:
    """An element stays if it wins against N - count others. Element j starts with j wins and loses one to each i < j
    that is not smaller, so a tie goes to the lower index."""
    size = score_GN.shape[1]
    score_NG = np.ascontiguousarray(score_GN.T)
    wins_NG = np.empty(score_NG.shape, dtype=np.int8)
    wins_NG[:] = np.arange(size)[:, None]
    for i in range(size):
        for j in range(i + 1, size):
            won_G = (score_NG[i] >= score_NG[j]).view(np.int8)
            wins_NG[i] += won_G
            wins_NG[j] -= won_G
    np.greater_equal(wins_NG, size - count, out=keep_GN.T)


def _by_threshold(score_GN: np.ndarray, count: int, keep_GN: np.ndarray) -> None:
    """What is above the smallest value that stays, and of what equals it the first."""
    rank = score_GN.shape[1] - count
    threshold_G1 = np.partition(score_GN, rank, axis=1)[:, rank, None]
    np.greater_equal(score_GN, threshold_G1, out=keep_GN)
    if np.count_nonzero(keep_GN) == count * len(score_GN):
        return
    tied = np.flatnonzero(score_GN == threshold_G1)  # row by row, and from left to right in a row
    row = tied // score_GN.shape[1]
    place = np.arange(len(tied)) - np.searchsorted(row, row)  # among the equals of its row
    surplus_G = np.count_nonzero(keep_GN, axis=1) - count
    kept_G = np.bincount(row, minlength=len(score_GN)) - surplus_G
    keep_GN.reshape(-1)[tied[place >= kept_G[row]]] = False


def _on_device(score_GN: Tensor, count: int) -> Tensor:
    """The same in few and large steps, none of which waits for the GPU."""
    size = score_GN.shape[1]
    if size <= COMPARED:
        one_GN1, other_G1N = score_GN[:, :, None], score_GN[:, None, :]
        earlier_NN = torch.ones(size, size, dtype=torch.bool, device=score_GN.device).tril(-1)
        lost_GNN = torch.where(earlier_NN, other_G1N >= one_GN1, other_G1N > one_GN1)
        return lost_GNN.sum(2, dtype=torch.int8) < count
    if len(score_GN) == 1:  # kthvalue leaves a group to one multiprocessor, a sort takes them all
        threshold_G1 = score_GN.sort(dim=1).values[:, size - count, None]
    else:
        threshold_G1 = score_GN.kthvalue(size - count + 1, dim=1, keepdim=True).values
    above_GN, equal_GN = score_GN > threshold_G1, score_GN == threshold_G1
    missing_G1 = count - above_GN.sum(1, keepdim=True)
    return above_GN | (equal_GN & (equal_GN.cumsum(1, dtype=torch.int32) <= missing_G1))
