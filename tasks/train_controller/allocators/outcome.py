"""What a search has come to: the allocation itself, and the rows that tell how it was found."""

from collections.abc import Callable
from statistics import fmean

from tasks.prune.allocation import Allocation
from tasks.train_controller.allocators.judge import ModelJudge
from tasks.train_controller.allocators.problem import Levels
from tasks.train_controller.allocators.results import OfUnits, OfWeights, Searched
from tasks.train_controller.allocators.rows import AllocationRow, AllocatorRow, CandidateRow, SearchRow
from tasks.train_controller.allocators.search import Found, Move
from tasks.train_controller.allocators.unit_rungs import UnitRungs, left_in_blocks
from tasks.train_controller.allocators.weight_rungs import allocation_of


def searched(
    name: str, found: Found, judge: ModelJudge, of: OfUnits | OfWeights, seconds: Callable[[], float]
) -> Searched:
    """Everything about what the allocator of this `name` found, judged on windows held out beside uniform levels.

    `seconds` is asked last. Raises RuntimeError for levels that do not meet the budget: a mistake of the allocator.
    """
    problem, levels = judge.rungs.problem, found.levels
    if not problem.meets(levels):
        raise RuntimeError(f"allocator: {name} ended with {levels}, which do not meet the budget of {problem.budget}")
    allocation: Allocation | None = None
    left: tuple[tuple[int, ...], ...] | None = None
    if isinstance(of, OfWeights):
        allocation = allocation_of(problem, of.pattern, levels)
    else:
        assert isinstance(judge.rungs, UnitRungs)
        left = left_in_blocks(judge.rungs, levels, of.cut)
    return Searched(
        levels=levels,
        allocation=allocation,
        left=left,
        moves=tuple(_move(place, name, move) for place, move in enumerate(found.moves)),
        parts=tuple(_parts(judge, levels)),
        candidates=tuple(
            CandidateRow(
                name=each.name,
                tokens=each.tokens,
                held_out=each.held_out,
                low=each.low,
                high=each.high,
                chosen=each.name == found.chosen,
            )
            for each in found.candidates
        ),
        allocator=_allocator(name, found, judge, seconds),
    )


def _allocator(name: str, found: Found, judge: ModelJudge, seconds: Callable[[], float]) -> AllocatorRow:
    problem, tokens, windows = judge.rungs.problem, judge.tokens, judge.texts
    held_out = {
        "dense": (0,) * len(problem.parts),
        "found": found.levels,
        "uniform": problem.uniform(),
    }
    losses = {subject: fmean(judge.held_out_losses(levels)) for subject, levels in held_out.items()}
    return AllocatorRow(
        allocator=name,
        tokens=tokens,
        limit=judge.limit,
        windows=len(windows.search_WT),
        held_out_windows=len(windows.held_out_WT),
        search_loss=fmean(judge.final_losses(found.levels)),
        dense_loss=losses["dense"],
        held_out_loss=losses["found"],
        uniform_held_out_loss=losses["uniform"],
        forwards=judge.forwards,
        hits=judge.hits,
        seconds=seconds(),
        why=found.why or None,
    )


def _move(place: int, name: str, move: Move) -> SearchRow:
    as_words = {
        "allocator": move.allocator or name,
        "levels": ",".join(map(str, move.levels)),
        "donor": move.donor and str(move.donor),
        "receiver": move.receiver and str(move.receiver),
    }
    return SearchRow(move=place, **vars(move) | as_words)


def _parts(judge: ModelJudge, levels: Levels) -> list[AllocationRow]:
    problem, rows = judge.rungs.problem, []
    for place, (part, rungs, most) in enumerate(zip(problem.parts, levels, problem.rungs, strict=True)):
        costs = {cost: each[place] * rungs / problem.totals[cost] for cost, each in problem.saves.items()}
        rows.append(
            AllocationRow(
                block=part.block,
                kind=part.kind,
                rungs=rungs,
                most=most,
                share=judge.rungs.share(place, rungs),
                **{f"saved_{cost}": costs.get(cost, 0.0) for cost in ("parameters", "flops", "bytes", "kv")},
            )
        )
    return rows
