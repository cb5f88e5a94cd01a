"""bench.rewards: shuffled rewards are those of other levels, and the table counts what falls."""

import numpy as np
import torch

from bench.allocators import Windows
from bench.rewards import Shuffled, metric_of
from bench.rewards_table import markdown
from tasks.prune.structure.cut import Cut
from tasks.train_controller.allocators.judge import ModelJudge
from tasks.train_controller.allocators.unit_rungs import unit_rungs
from tests.cases import VOCABULARY, llama
from tests.train_controller.allocators.test_unit_rungs import scores_of


def test_shuffled_losses_and_rises_are_those_of_others_and_stay_so():
    model = llama()
    rungs = unit_rungs(model, scores_of(model), Cut(budget=0.3, round_to=8, repair=False))
    ids_WT = torch.randint(0, VOCABULARY, (8, 12), generator=torch.Generator().manual_seed(0))
    windows = Windows(search_WT=ids_WT[:4], held_out_WT=ids_WT[4:])
    shuffled, own = Shuffled(rungs, windows, 10**6, {}, seed=0), ModelJudge(rungs, windows, 10**6, {})
    levels = rungs.problem.uniform()
    other = shuffled._other(levels)
    assert other != levels
    assert rungs.problem.meets(other)
    assert shuffled.search_losses(levels) == own.search_losses(other) == shuffled.search_losses(levels)
    assert shuffled.held_out_losses(levels) == own.held_out_losses(levels)
    mixed, honest = shuffled.rung_rises(levels), own.rung_rises(other)
    assert mixed.loss == honest.loss
    assert [len(each) for each in mixed.parts] == [len(each) for each in honest.parts]
    assert not all(np.array_equal(a, b) for a, b in zip(mixed.parts, honest.parts, strict=True))


def test_what_a_weight_pays_for():
    model = llama()
    problem = unit_rungs(model, scores_of(model), Cut(budget=0.3, round_to=8, repair=False)).problem
    all_gone = problem.rungs
    for weight in ("flops", "bytes", "kv"):
        assert metric_of(weight, problem, all_gone, 0.0) == problem.saved(all_gone, weight) / problem.totals[weight]
    assert metric_of("peak", problem, (0,) * len(all_gone), 0.0) == 0
    assert metric_of("peak", problem, all_gone, 0.0) > 0
    assert metric_of("accuracy", problem, all_gone, 2.5) == -2.5


def test_the_table_counts_seeds_in_which_more_bought_less():
    def line(weight, value, seed, metric):
        return {
            "cell": {"weight": weight, "value": value, "looks": 60, "seed": seed},
            "metric": metric,
            "held_out": 2.0 + seed,
            "uniform": 3.0,
        }

    lines = [{"command": "", "date": "2026-11-23", "machine": "{}"}]
    lines += [line("kv", value, 0, value) for value in (0.05, 0.5, 2.0)]
    lines += [line("kv", value, 1, -value) for value in (0.05, 0.5, 2.0)]
    lines += [line("own", 1.0, seed, 0.0) for seed in range(2)]
    text = markdown({"builtin": lines})
    assert "| kv | 0.0000 | 0.0000 | 0.0000 | 2 | 1 |" in text
    assert "| own | -0.5000 ± 6.3531 |" in text
