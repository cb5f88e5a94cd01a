"""What is known of each part before any level is tried: numbers in which the parts of a model differ.

depth                 of the block, 0 for the first to 1 for the last
is_ffn                1 or 0
share_<cost>          of what all blocks have of a cost, what the rungs of the part could save
score_mean, score_max, score_spread
                      of the scores of its units or weights; the spread is the standard deviation over the mean
cosine                of what enters the block and what leaves it, the mean over all tokens
outliers              the share of the block's weights whose score |W|·‖x‖ is above 5 times the block's mean (OWL)
rise                  of the loss with half of its rungs gone alone, where a table has been measured
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.calibrate.importance.importance import BLOCKS
from tasks.calibrate.importance.influence import Influence
from tasks.calibrate.importance.outliers import outlier_ratios
from tasks.train_controller.allocators.problem import Part, Problem
from tasks.train_controller.allocators.rows import LevelRow
from tasks.train_controller.allocators.search import Features


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Of scores; `spread` is their standard deviation over their mean."""

    mean: float
    max: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class BlockFeatures:
    """What a block does to the text that flows through it."""

    cosine: float
    outliers: float


def summary_of(score_N: Tensor) -> Summary:
    score_N = score_N.double()
    mean = score_N.mean().item()
    spread = score_N.std(correction=0).item() / mean if mean else 0.0
    return Summary(mean=mean, max=score_N.max().item(), spread=spread)


def block_features(
    model: PreTrainedModel, batches: Sequence[Tensor], device: torch.device | str | None = None
) -> tuple[BlockFeatures, ...]:
    """Of every block of the dense model: two walks over the calibration `batches`. Raises as `Influence.score`."""
    influences = [of_block[BLOCKS].item() for of_block in Influence().score(model, batches, device)]
    ratios = outlier_ratios(model, batches, device=device)
    pairs = zip(influences, ratios, strict=True)
    return tuple(BlockFeatures(cosine=1 - influence, outliers=ratio) for influence, ratio in pairs)


def features_of(
    problem: Problem,
    scores: Mapping[Part, Summary],
    blocks: Sequence[BlockFeatures],
    table: Sequence[LevelRow] = (),
) -> Features:
    """By part, what this module names, as far as `blocks` of the model and the `table` are there to tell it."""
    last = max(part.block for part in problem.parts) or 1
    rises = {(row.block, row.kind, row.rungs): row.rise for row in table}
    features = {}
    for place, (part, most) in enumerate(zip(problem.parts, problem.rungs, strict=True)):
        costs = {
            f"share_{cost}": each[place] * most / problem.totals[cost] if problem.totals[cost] else 0.0
            for cost, each in problem.saves.items()
        }
        score = scores[part]
        features[part] = {
            "depth": part.block / last,
            "is_ffn": float(part.kind == "ffn"),
            **costs,
            "score_mean": score.mean,
            "score_max": score.max,
            "score_spread": score.spread,
        }
        if blocks:
            features[part] |= vars(blocks[part.block])
        if table:
            features[part]["rise"] = rises[part.block, part.kind, (most + 1) // 2]
    return features
