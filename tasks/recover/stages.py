"""Adapt-Accel: a model is cut in stages and trained between them, by one training whose learning rate has one curve.

The k-th of n stages leaves P0 - (P0 - Pt) * k / n of the P0 parameters, where Pt are to be left in the end. What it
then trains is a share 2k / (n * (n + 1)) of the whole, so a stage trains longer the more has been cut until then.

Source: Wang et al., Adapt-Pruner, arXiv:2502.03460.
"""

from dataclasses import dataclass

from tasks.recover.recovery import Span


@dataclass(frozen=True, kw_only=True)
class CutStage:
    """The `stage`-th of the stages, from 1: it leaves `target` parameters, and trains the steps of `span`."""

    stage: int
    target: int
    span: Span


def cut_stages(*, parameters: int, target: int, stages: int, steps: int) -> tuple[CutStage, ...]:
    """From a model of so many `parameters` to `target`, by a training of `steps`.

    Raises ValueError for a target that is none, no stages or more than parameters go, and fewer steps than give every
    stage one.
    """
    if not 0 < target < parameters:
        raise ValueError(f"target_parameters: {target} given, the model has {parameters}; valid is less")
    if stages < 1:
        raise ValueError(f"stages: {stages} given, valid is 1 or more")
    if stages > parameters - target:
        given = f"stages: {stages} given to cut {parameters - target} parameters"
        raise ValueError(f"{given}, valid is 1 to {parameters - target}")
    if steps < (least := least_steps(stages)):
        raise ValueError(f"steps: {steps} given for {stages} stages, valid is {least} or more")
    ends = [_end(stage, stages, steps) for stage in range(stages + 1)]
    return tuple(
        CutStage(
            stage=stage,
            target=parameters - (parameters - target) * stage // stages,
            span=Span(first=ends[stage - 1], last=ends[stage]),
        )
        for stage in range(1, stages + 1)
    )


def least_steps(stages: int) -> int:
    """With fewer the first stage, whose share is the smallest, would train nothing."""
    return -(-stages * (stages + 1) // 4)


def _end(stage: int, stages: int, steps: int) -> int:
    """The sum of the shares until then is k (k + 1) / (n (n + 1)) of the steps, rounded half up: in integers."""
    whole = stages * (stages + 1)
    return (2 * steps * stage * (stage + 1) + whole) // (2 * whole)
