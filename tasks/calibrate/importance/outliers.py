"""OWL: how much of each block of the dense model are outliers, measured on calibration windows.

Axes: T tokens, O outputs, I inputs of a linear.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.calibrate.observers import InputNorm
from tasks.calibrate.walk import Walk, check_walk, lent
from tasks.model.anatomy import Anatomy, before_each, dissect
from tasks.model.mode import evaluating


@torch.no_grad()
def outlier_ratios(
    model: PreTrainedModel,
    batches: Sequence[Tensor] | None,
    threshold: float = 5.0,
    device: torch.device | str | None = None,
) -> list[float]:
    """For every block, the share of its weights whose score is above `threshold` times the block's mean score, 0 to 1.

    The score is |W_ij|·‖x_j‖, the mean that of all linears of the block together. One forward through the blocks,
    nothing is pruned, and the model stays as it is. `batches`: ids, (windows, tokens) each; `device`: where a block is
    meanwhile, None for where the model is.

    Raises ValueError without batches, for a `threshold` that is not above 0, and for a model whose blocks cannot be
    walked. Source: Yin et al., Outlier Weighed Layerwise Sparsity, arXiv:2310.05175, section 3 (D_l, with M the
    threshold); a layer there is a block here, all linears taken together, as in the authors' program.
    """
    if not 0 < threshold < float("inf"):
        raise ValueError(f"threshold: {threshold} given, valid is above 0")
    if not batches:
        raise ValueError("batches: none given; outlier ratios need calibration windows")
    with evaluating(model):
        anatomy = dissect(model)
        check_walk(model, anatomy, batches[0])
        walk = Walk(model, anatomy, batches, device)
        return [_outlier_ratio(walk, anatomy, index, threshold) for index in range(len(anatomy.blocks))]


def _outlier_ratio(walk: Walk, anatomy: Anatomy, index: int, threshold: float) -> float:
    """Of one block; the walk moves on to the next."""
    with lent(anatomy.blocks[index], walk.device):
        linears = anatomy.linears(index)
        norms = _observe(walk, anatomy, index, linears)
        size = sum(linear.weight.numel() for linear in linears.values())
        total = sum(_score(linear, norms[name]).sum(dtype=torch.float64) for name, linear in linears.items())
        bar = threshold * total / size
        above = sum((_score(linear, norms[name]) > bar).sum() for name, linear in linears.items())
    return int(above) / size


def _observe(walk: Walk, anatomy: Anatomy, index: int, linears: Mapping[str, nn.Linear]) -> dict[str, Tensor]:
    """‖x_j‖ for every linear of the block; those that read one input share the tensor."""
    groups = {group[0]: group for group in anatomy.shared_inputs[index]}
    stats = {first: InputNorm(linears[first].in_features, walk.device) for first in groups}

    with before_each({first: linears[first] for first in groups}, lambda first, x: stats[first].see(x)):
        for _ in walk.step(index):
            pass
    norms = {first: stat.norm_I() for first, stat in stats.items()}
    return {name: norms[first] for first, group in groups.items() for name in group}


def _score(linear: nn.Linear, norm_I: Tensor) -> Tensor:
    """|W_ij|·‖x_j‖ in float32, or in float64 if W is. Computed when it is needed: one matrix of scores at a time."""
    weight_OI = linear.weight.detach()
    dtype = torch.promote_types(weight_OI.dtype, torch.float32)
    return weight_OI.to(dtype, copy=True).abs_().mul_(norm_I.to(dtype))
