"""The order of a linear's inputs under which n:m keeps most: important inputs must not meet in one group.

The heuristic of RIA's authors deals the inputs out to the groups by their importance. From there, or from the order as
it is if that leads further, one slot after the other is reassigned: all columns that stand in slot c of their groups
are taken out and given back in the best way at once. A group without its slot c keeps the n - 1 largest of its other
m - 1 scores in a row, and then the larger of their n-th largest v and the column's score s. So a column is worth
Σ max(s, v) to a group, over the rows; that is (Σ s + Σ v + Σ |s - v|) / 2, in which the first sum belongs to the column
and the second to the group, whoever gets whom. What decides is Σ |s - v|, a matrix of L1 distances.

Source: Zhang et al., Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models, ICLR 2024.
Axes: O outputs, I inputs of the linear, G groups, M slots of a group.
"""

from collections.abc import Iterable

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from tasks.prune.weight.pattern import NM, Pattern

LAST_RISE = 1e-4  # a sweep over all slots that raises the retained sum by a smaller share is the last one
STRIP = 64  # outputs at a time: what the distances are taken of then stays in the cache


def permute(score_OI: Tensor, pattern: Pattern) -> Tensor:
    """`order_I`, the best order found: under `pattern`, `score_OI[:, order_I]` never retains less than `score_OI`.

    Linears that read one input need one order: stack their scores along O. The same scores give the same order, and
    scores that no order improves give 0, 1, 2, …

    Raises ValueError for a pattern other than n:m, one that does not divide the inputs, and scores that are NaN or
    infinite.
    """
    pattern = _only_nm(pattern)
    before = retained(score_OI, pattern)
    identity_I = torch.arange(score_OI.shape[1], device=score_OI.device)
    if pattern.n == pattern.m or score_OI.numel() == 0:
        return identity_I
    score_IO = _transposed(score_OI)
    raced = []
    for start_I in (identity_I, deal(score_OI, pattern)):
        order_MG = start_I.view(-1, pattern.m).T.clone()
        _sweep(score_IO, order_MG, pattern.n)
        raced.append((retained(score_OI[:, _flat(order_MG)], pattern), order_MG))
    after, order_MG = max(raced, key=lambda race: race[0])
    while _sweep(score_IO, order_MG, pattern.n) > LAST_RISE * abs(after):
        pass
    order_I = _flat(order_MG)
    return order_I if retained(score_OI[:, order_I], pattern) > before else identity_I


def permute_within(score_OI: Tensor, pattern: Pattern, width: int, shared: int = 1) -> Tensor:
    """As `permute`, but inputs stay within heads of `width` inputs, and `shared` consecutive heads take one order.

    So the input of an attention's output projection can be ordered by its value heads, each of which makes the inputs
    of `shared` query heads. Raises ValueError also for heads that do not divide the inputs, or that the pattern does
    not divide.
    """
    pattern = _only_nm(pattern)
    inputs = score_OI.shape[-1]
    if width < 1 or shared < 1 or inputs % (width * shared):
        raise ValueError(f"width: {shared} x {width} inputs given, a divisor of {inputs} is needed")
    if not pattern.divides(width):
        raise ValueError(f"width: heads of {width} inputs given, {pattern} needs a multiple of {pattern.m}")
    heads = score_OI.split(width, dim=-1)
    orders = []
    for first in range(0, len(heads), shared):
        order = permute(torch.cat(heads[first : first + shared]), pattern)
        orders += [head * width + order for head in range(first, first + shared)]
    return torch.cat(orders)


def deal(score_OI: Tensor, pattern: Pattern) -> Tensor:
    """`order_I` of the heuristic: inputs by falling column sum, cut into m blocks, each dealt out to all groups.

    Every second block is dealt backwards. It may retain less than the order as it is.
    """
    pattern = _only_nm(pattern)
    if not pattern.divides(score_OI.shape[-1]):
        raise ValueError(f"pattern: {pattern} does not divide {score_OI.shape[-1]} inputs")
    total_I = score_OI.detach().sum(0, dtype=torch.float64)
    order_MG = total_I.argsort(descending=True, stable=True).view(pattern.m, -1).clone()
    order_MG[1::2] = order_MG[1::2].flip(1)
    return _flat(order_MG)


def retained(score_OI: Tensor, pattern: Pattern) -> float:
    """The sum of the scores that `pattern` keeps, in float64."""
    return score_OI.detach()[pattern.keep(score_OI)].sum(dtype=torch.float64).item()


def _sweep(score_IO: Tensor, order_MG: Tensor, n: int) -> float:
    """Reassign the columns of each slot to the groups, in place; returns by how much the retained sum has risen."""
    rise = 0.0
    for slot, column_G in enumerate(order_MG):
        others = (score_IO[other_G] for other, other_G in enumerate(order_MG) if other != slot)
        threshold_GO = _nth_largest(others, n)
        distance_GG = _distance(threshold_GO, score_IO[column_G]).cpu().numpy()
        groups, taken = linear_sum_assignment(distance_GG, maximize=True)
        gain = (distance_GG[groups, taken] - distance_GG.diagonal()).sum(dtype=float).item() / 2
        if gain > 0:
            column_G.copy_(column_G[torch.from_numpy(taken).to(column_G.device)])
            rise += gain
    return rise


def _distance(one_GO: Tensor, other_GO: Tensor) -> Tensor:
    """The L1 distance of each row of the one to each row of the other."""
    distance_GG = one_GO.new_zeros(len(one_GO), len(other_GO))
    for one, other in zip(one_GO.split(STRIP, dim=1), other_GO.split(STRIP, dim=1), strict=True):
        distance_GG += torch.cdist(one, other, p=1)
    return distance_GG


def _nth_largest(planes: Iterable[Tensor], n: int) -> Tensor:
    """Of n or more tensors of one shape the n-th largest, element by element: by insertion, for m is small."""
    largest: list[Tensor] = []
    for plane in planes:
        for rank, above in enumerate(largest):
            largest[rank], plane = torch.maximum(above, plane), torch.minimum(above, plane)
        if len(largest) < n:
            largest.append(plane)
    return largest[-1]


def _transposed(score_OI: Tensor) -> Tensor:
    """In float32, or in float64 if the scores are; a column of the linear is a row of memory."""
    return score_OI.detach().T.to(torch.promote_types(score_OI.dtype, torch.float32)).contiguous()


def _flat(order_MG: Tensor) -> Tensor:
    return order_MG.T.reshape(-1)


def _only_nm(pattern: Pattern) -> NM:
    if not isinstance(pattern, NM):
        raise ValueError(f"pattern: {pattern} given, but inputs are permuted for n:m alone (such as 2:4)")
    return pattern
