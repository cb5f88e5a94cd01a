"""A stage of `iterative`: score, allocate, slice, recover; and what its rows and those of all stages say."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from flows.iterative_choices import Iterative
from flows.iterative_plan import PreparedIterative
from tasks.handles import Checkpoint, SliceRow, Tokens
from tasks.prune.structure.cut import Cut
from tasks.prune.structure.results import Scored, Sliced
from tasks.prune.structure.rows import CutStageRow
from tasks.prune.structure.task import score_units, slice_checkpoint
from tasks.recover.moments import Moments
from tasks.recover.stages import CutStage
from tasks.recover.task import Trained, cut_moments, recover_checkpoint
from tasks.stage import Stages
from tasks.train_controller.allocators.results import OfUnits, Searched
from tasks.train_controller.allocators.task import describe_blocks, search_allocation

OF_ONE_CUT = ("cut_error", "repaired_error", "attention_gain", "ffn_gain", "damp")  # against the model just before it


@dataclass(frozen=True, kw_only=True)
class Left:
    """What a stage finds: the model, its parameters, those in its blocks, and what the training so far remembers."""

    checkpoint: Checkpoint
    parameters: int
    of_blocks: int
    moments: Moments | None = None

    @classmethod
    def whole(cls, found: PreparedIterative) -> Self:
        """The dense model, of which nothing was trained."""
        return cls(checkpoint=found.model, parameters=found.reach.parameters, of_blocks=found.reach.of_blocks)


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a stage did, and what it leaves to the next."""

    sliced: Sliced
    trained: Trained
    left: Left
    row: CutStageRow


def cut_and_train(
    stages: Stages,
    parameters: Iterative,
    found: PreparedIterative,
    stage: CutStage,
    before: Left,
    calibration: Tokens,
    texts: Sequence[Tokens],
) -> Done:
    """Score the units anew, divide what is to go among the blocks, cut and repair, and go on with the training."""
    named, first = f"stage {stage.stage}", len(stages.rows)
    scored, cut, allocated = _allocate(stages, parameters, found, stage, before, calibration)
    sliced: Sliced = stages(
        slice_checkpoint,
        named=f"slice, {named}",
        model=before.checkpoint,
        calibration=calibration,
        scored=scored,
        cut=cut,
        device=found.device,
        dense=found.model,
    )
    moments = before.moments and stages(
        cut_moments,
        named=f"cut moments, {named}",
        moments=before.moments,
        model=before.checkpoint,
        scored=scored,
        cut=cut,
        dense=found.model,
    )
    trained: Trained = stages(
        recover_checkpoint,
        named=f"recover, {named}",
        checkpoint=sliced.checkpoint,
        texts=texts,
        weights=tuple(text.weight for text in parameters.texts()),
        training=found.training,
        device=found.device,
        dense=None if found.training.distil is None else found.model,
        span=stage.span,
        moments=moments,
    )
    of_blocks = sum(block.parameters for block in sliced.rows.blocks)
    left = Left(
        checkpoint=trained.checkpoint,
        parameters=before.parameters - before.of_blocks + of_blocks,
        of_blocks=of_blocks,
        moments=trained.moments,
    )
    repaired = [row.loss for row in sliced.rows.repairs if row.chosen]
    recovery, steps = found.training.recovery, found.training.recovery.steps(found.window)
    row = CutStageRow(
        stage=stage.stage,
        parameters=left.parameters,
        parameters_before=before.parameters,
        target=stage.target,
        calibration_loss=repaired[0] if repaired else allocated.allocator.held_out_loss,
        steps=stage.span.steps,
        tokens=stage.span.steps * recovery.batch * found.window,
        share=stage.span.steps / steps,
        rate_from=recovery.rate_at(stage.span.first, steps),
        rate_to=recovery.rate_at(stage.span.last - 1, steps),
        first_loss=trained.sources[0].first_loss,
        last_loss=trained.sources[0].last_loss,
        seconds=sum(each.seconds for each in stages.rows[first:]),
    )
    return Done(sliced=sliced, trained=trained, left=left, row=row)


def _allocate(
    stages: Stages,
    parameters: Iterative,
    found: PreparedIterative,
    stage: CutStage,
    before: Left,
    calibration: Tokens,
) -> tuple[Scored, Cut, Searched]:
    """The scores of the units, the cut that they decide, and what its allocator found."""
    named, allocator = f"stage {stage.stage}", parameters.allocator
    on_calibration: dict[str, Any] = {"model": before.checkpoint, "calibration": calibration, "device": found.device}
    how: dict[str, Any] = {"importance": found.importance, "name": parameters.importance.method}
    scored: Scored = stages(score_units, named=f"score units, {named}", **on_calibration, **how)
    blocks = ()
    if allocator.method == "adapt":
        blocks = stages(describe_blocks, named=f"describe blocks, {named}", **on_calibration)
    share = (before.parameters - stage.target) / before.of_blocks
    cut = Cut(budget=share, round_to=parameters.round_to, repair=parameters.repair)
    allocated: Searched = stages(
        search_allocation,
        named=f"allocate, {named}",
        **on_calibration,
        of=OfUnits(scored=scored, cut=cut),
        searcher=allocator.build(),
        name=allocator.method,
        tokens=calibration.tokens,
        seed=parameters.seed,
        blocks=blocks,
        table=(),
    )
    return scored, replace(cut, left=allocated.left), allocated


def slices_of_all(cuts: Sequence[Sliced]) -> list[SliceRow]:
    """A row for each block, from the dense model to the last cut. What is of one cut alone is left out."""
    rows = []
    for of_block in zip(*(cut.rows.blocks for cut in cuts), strict=True):
        first, last = of_block[0], of_block[-1]
        befores = {name: value for name, value in vars(first).items() if name.endswith("_before")}
        seconds = sum(row.seconds for row in of_block)
        rows.append(replace(last, **befores, **dict.fromkeys(OF_ONE_CUT), seconds=seconds))
    return rows


def trained_in_all(spans: Sequence[Trained]) -> Trained:
    """The last span, whose rows count the steps of all, with the loss at which the first began."""
    both = zip(spans[-1].sources, spans[0].sources, strict=True)
    return replace(spans[-1], sources=tuple(replace(row, first_loss=first.first_loss) for row, first in both))
