"""The table of levels: what each part costs alone, at each number of its rungs."""

from collections.abc import Iterator
from statistics import fmean

from tasks.train_controller.allocators.judge import ModelJudge, Windows
from tasks.train_controller.allocators.problem import Levels, Problem
from tasks.train_controller.allocators.rows import LevelRow
from tasks.train_controller.allocators.rungs import Rungs


def looks_of(problem: Problem) -> int:
    """How many looks the table takes: the dense model, and each part at each of its numbers of rungs."""
    return 1 + sum(problem.rungs)


def level_table(judge: ModelJudge) -> Iterator[LevelRow]:
    """A row for each part and number of rungs, from none to all that may go, as they are measured.

    Raises Spent where `judge` may look at less than the table takes.
    """
    problem = judge.rungs.problem
    dense = fmean(judge.search_losses((0,) * len(problem.parts)))
    for place, (part, most) in enumerate(zip(problem.parts, problem.rungs, strict=True)):
        for rungs in range(most + 1):
            loss = fmean(judge.search_losses(alone(problem, place, rungs)))
            share = judge.rungs.share(place, rungs)
            yield LevelRow(block=part.block, kind=part.kind, rungs=rungs, share=share, loss=loss, rise=loss - dense)


def table_judge(rungs: Rungs, windows: Windows, known: dict[str, tuple[float, ...]] | None = None) -> ModelJudge:
    """A judge that may look as often as the table takes, and no more."""
    return ModelJudge(rungs, windows, looks_of(rungs.problem) * windows.tokens, known)


def alone(problem: Problem, place: int, rungs: int) -> Levels:
    """So many rungs of the part at this place, none of the others."""
    return tuple(rungs if each == place else 0 for each in range(len(problem.parts)))
