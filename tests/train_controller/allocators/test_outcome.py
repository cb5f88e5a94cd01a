from dataclasses import replace
from statistics import fmean

import pytest
import torch

from tasks.prune.structure.results import Scored
from tasks.train_controller.allocators.judge import ModelJudge, divided
from tasks.train_controller.allocators.outcome import searched
from tasks.train_controller.allocators.results import OfUnits
from tasks.train_controller.allocators.search import Candidate, Found, Move
from tasks.train_controller.allocators.unit_rungs import unit_rungs
from tests.cases import batches, llama
from tests.train_controller.allocators.test_unit_rungs import cut, scores_of


def judge_and_goal(**changes):
    model = llama()
    asked = cut(round_to=16, **changes)
    rungs = unit_rungs(model, scores_of(model), asked)
    judge = ModelJudge(rungs, divided(torch.cat(batches((8, 16))), tokens=64), limit=64)
    return judge, OfUnits(scored=Scored(hash="1", folder="store/scores/1", importance="taylor"), cut=asked)


def test_rows_tell_what_was_found_beside_uniform():
    judge, goal = judge_and_goal()
    problem = judge.rungs.problem
    levels = problem.project([1, 0, 0, 0, 0, 1])
    judge.search_losses(levels)
    pair = {"donor": problem.parts[5], "receiver": problem.parts[0]}
    move = Move(step=0, levels=levels, loss=3.5, best=3.5, tokens=64, **pair)
    of_one = Move(step=0, levels=levels, loss=3.25, best=3.25, tokens=128, allocator="milp")
    candidate = Candidate(name="evolution", levels=levels, tokens=64, held_out=4.5, low=-0.2, high=-0.1)
    alike = replace(candidate, name="milp")
    found = Found(
        levels=levels,
        moves=(move, of_one),
        candidates=(candidate, alike),
        chosen="evolution",
        why="it is surely better",
    )
    made = searched("auto", found, judge, goal, lambda: 2.5)
    row = made.allocator
    assert (row.allocator, row.tokens, row.limit, row.windows, row.held_out_windows) == ("auto", 64, 64, 4, 4)
    assert (row.forwards, row.hits, row.seconds, row.why) == (4, 1, 2.5, "it is surely better")
    assert row.search_loss == fmean(judge.final_losses(levels))
    assert row.held_out_loss == fmean(judge.held_out_losses(levels))
    assert row.uniform_held_out_loss == fmean(judge.held_out_losses(problem.uniform()))
    assert row.dense_loss == fmean(judge.held_out_losses((0,) * 6))
    assert made.allocation is None
    assert made.left == tuple((2 - levels[2 * block], 64 - 16 * levels[2 * block + 1]) for block in range(3))
    total = problem.totals["flops"]
    for place, part in enumerate(made.parts):
        assert (part.block, part.kind) == (place // 2, ("attention", "ffn")[place % 2])
        assert part.share == pytest.approx(levels[place] / (2 if part.kind == "attention" else 4))
        assert part.saved_flops == problem.saves["flops"][place] * levels[place] / total
    assert sum(part.saved_parameters for part in made.parts) == problem.saved(levels) / problem.totals["parameters"]
    assert [each.chosen for each in made.candidates] == [True, False]  # one alone, whoever else found the same
    assert [each.levels for each in made.moves] == [",".join(map(str, levels))] * 2
    assert [(each.donor, each.receiver) for each in made.moves] == [("2.ffn", "0.attention"), (None, None)]
    assert [(each.move, each.allocator, each.loss) for each in made.moves] == [(0, "auto", 3.5), (1, "milp", 3.25)]


def test_levels_off_the_budget_are_a_mistake_of_the_allocator():
    judge, goal = judge_and_goal()
    with pytest.raises(RuntimeError, match=r"^allocator: mine ended with \(0, 0, 0, 0, 0, 0\), which do not meet"):
        searched("mine", Found(levels=(0,) * 6), judge, goal, lambda: 0.0)
