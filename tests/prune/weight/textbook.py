"""Each method as its paper writes it, in float64, a weight or a column at a time: slow, plain, and the reference."""

import torch
from torch import Tensor

from tasks.prune.weight.pattern import NM, Pattern, Unstructured


def keep(score_OI: Tensor, pattern: Pattern) -> Tensor:
    """By a full sort of each comparison group; of equal scores the first stays."""
    outputs, inputs = score_OI.shape
    if isinstance(pattern, NM):
        groups = score_OI.reshape(-1, pattern.m)
        count = pattern.n
    else:
        assert isinstance(pattern, Unstructured)
        groups = score_OI if pattern.within == "row" else score_OI.reshape(1, -1)
        count = groups.shape[1] - int(groups.shape[1] * pattern.sparsity)
    kept = torch.zeros_like(groups, dtype=torch.bool)
    for group, kept_group in zip(groups.tolist(), kept, strict=True):
        order = sorted(range(len(group)), key=lambda index: (-group[index], index))
        kept_group[order[:count]] = True
    return kept.reshape(outputs, inputs)


def magnitude(weight_OI: Tensor, x_TI: Tensor, pattern: Pattern) -> Tensor:
    return weight_OI * keep(weight_OI.abs().double(), pattern)


def wanda(weight_OI: Tensor, x_TI: Tensor, pattern: Pattern) -> Tensor:
    return weight_OI * keep(weight_OI.abs().double() * x_TI.double().norm(dim=0), pattern)


def ria(weight_OI: Tensor, x_TI: Tensor, pattern: Pattern) -> Tensor:
    magnitude_OI = weight_OI.abs().double()
    score_OI = magnitude_OI / magnitude_OI.sum(0, keepdim=True) + magnitude_OI / magnitude_OI.sum(1, keepdim=True)
    return weight_OI * keep(score_OI * x_TI.double().norm(dim=0).sqrt(), pattern)


def clearcut(weight_OI: Tensor, x_TI: Tensor, pattern: Pattern) -> Tensor:
    magnitude_OI = weight_OI.abs().double()
    column_I, row_O1 = magnitude_OI.sum(0, keepdim=True), magnitude_OI.sum(1, keepdim=True)
    score_OI = magnitude_OI / column_I + magnitude_OI / row_O1 + 0.1 * magnitude_OI.square() / (row_O1 * column_I)
    return weight_OI * keep(score_OI * x_TI.double().norm(dim=0).sqrt(), pattern)


def sparsegpt(
    weight_OI: Tensor, x_TI: Tensor, pattern: Pattern, damp: float = 0.01, block: int = 128
) -> tuple[Tensor, Tensor, float]:
    """The pruned weight, the damped H it was pruned with, and the sum of the squared errors e."""
    weight_OI, x_TI = weight_OI.double().clone(), x_TI.double()
    hessian_II = 2 * x_TI.T @ x_TI
    dead_I = hessian_II.diagonal() == 0
    mean = hessian_II.diagonal()[~dead_I].mean()
    hessian_II[dead_I, dead_I] = 1
    weight_OI[:, dead_I] = 0
    hessian_II += torch.diag(torch.where(dead_I, 0, damp * mean))
    upper_II = torch.linalg.cholesky(torch.linalg.inv(hessian_II), upper=True)
    kept = torch.ones_like(weight_OI, dtype=torch.bool)
    errors, inputs = 0.0, weight_OI.shape[1]
    for j in range(inputs):
        if isinstance(pattern, NM) and j % pattern.m == 0:
            group = slice(j, j + pattern.m)
            kept[:, group] = pattern.keep(weight_OI[:, group].square() / upper_II.diagonal()[group].square())
        if isinstance(pattern, Unstructured) and j % block == 0:
            group = slice(j, min(j + block, inputs))
            score = weight_OI[:, group].square() / upper_II.diagonal()[group].square()
            kept[:, group] = keep(score, Unstructured(pattern.sparsity, "matrix"))
        error_O = torch.where(kept[:, j], 0, weight_OI[:, j]) / upper_II[j, j]
        weight_OI[:, j:] -= error_O[:, None] * upper_II[j, j:]
        weight_OI[:, j] = torch.where(kept[:, j], weight_OI[:, j], 0)
        errors += error_O.square().sum().item()
    return weight_OI, hessian_II, errors
