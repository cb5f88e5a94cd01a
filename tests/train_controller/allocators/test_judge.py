import json
import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from tasks.evaluate.perplexity import perplexity
from tasks.model.mode import only_gradients_of
from tasks.train_controller.allocators.judge import ModelJudge, divided
from tasks.train_controller.allocators.losses import window_losses
from tasks.train_controller.allocators.problem import Part, Problem
from tasks.train_controller.allocators.rungs import Lever, Rungs
from tasks.train_controller.allocators.search import Spent
from tests.cases import VOCABULARY, llama

PARTS = (Part(block=0, kind="attention"), Part(block=0, kind="ffn"))
PROBLEM = Problem(
    parts=PARTS, rungs=(3, 3), saves={"parameters": (5, 5)}, totals={"parameters": 40}, cost="parameters", budget=15
)


class Untouched(Rungs):
    """Rungs that change nothing, and count how often they were applied."""

    def __init__(self):
        self.model, self.problem, self.applications = llama(), PROBLEM, 0

    def share(self, place, rungs):
        return rungs / 4

    @contextmanager
    def applied(self, levels):
        self.applications += 1
        yield

    @contextmanager
    def levers(self, levels):
        self.applications += 1
        block = self.model.model.layers[0]
        weights = [block.self_attn.o_proj.weight, block.mlp.down_proj.weight]
        with only_gradients_of(self.model, weights):
            yield [
                [Lever(value=weight, full=weight.detach(), outlasts=torch.arange(weight.numel()).view_as(weight) % 4)]
                for weight in weights
            ]


def windows(count, length=12, seed=0):
    return torch.randint(0, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(seed))


def test_a_window_loses_what_perplexity_says_of_it_alone():
    model, ids_WT = llama(), windows(5)
    alone = [perplexity(model, window_T, window=12).nll for window_T in ids_WT]
    assert window_losses(model, ids_WT) == pytest.approx(alone, rel=1e-6)


def test_what_is_no_number_is_the_worst():
    model = llama()
    model.get_output_embeddings().weight.data[3] = math.nan
    assert window_losses(model, windows(2)) == (math.inf, math.inf)


def test_no_window_is_both_searched_and_held_out():
    ids_WT = torch.arange(7 * 5).view(7, 5)
    made = divided(ids_WT, tokens=10**9)
    assert made.search_WT.tolist() == ids_WT[[0, 2, 4, 6]].tolist()
    assert made.held_out_WT.tolist() == ids_WT[[1, 3, 5]].tolist()


def test_a_search_has_64_looks_at_least_where_its_tokens_pay_for_them():
    ids_WT = windows(400, length=10)
    for tokens, count in [(6_400, 10), (64_000, 64), (2_000, 4), (10**9, 64)]:
        made = divided(ids_WT, tokens)
        assert len(made.search_WT) == count
        assert tokens // made.tokens >= min(64, tokens // 40)


def test_tokens_below_a_look_and_windows_that_cannot_be_divided_are_refused():
    for ids_WT, tokens, message in [
        (windows(8), 47, r"^allocator_tokens: 47 given, valid is 48 or more, which one look takes$"),
        (windows(1), 100, r"^samples: 1 windows of 12 tokens given, a search needs 2 windows"),
        (windows(4, length=1), 100, r"^samples: 4 windows of 1 tokens given"),
    ]:
        with pytest.raises(ValueError, match=message):
            divided(ids_WT, tokens)


def test_what_was_seen_costs_nothing_and_the_rest_is_spent():
    rungs = Untouched()
    judge = ModelJudge(rungs, divided(windows(4), 1000), limit=60)  # a look is 24 tokens
    assert (judge.tokens, judge.looks_left) == (0, 2)
    first = judge.search_losses((0, 1))
    assert judge.search_losses((0, 1)) == first
    assert (judge.tokens, judge.looks_left, rungs.applications, judge.hits) == (24, 1, 1, 1)
    judge.search_losses((1, 0))
    with pytest.raises(Spent):
        judge.search_losses((1, 1))
    assert judge.search_losses((0, 1)) == first
    assert (judge.tokens, rungs.applications) == (48, 2)


def test_held_out_windows_are_other_ones_and_are_not_counted():
    judge = ModelJudge(Untouched(), divided(windows(4), 1000), limit=24)
    searched, held_out = judge.search_losses((0, 0)), judge.held_out_losses((0, 0))
    assert len(searched) == len(held_out) == 2
    assert set(searched).isdisjoint(held_out)
    assert judge.held_out_losses((3, 0)) == held_out  # these rungs change nothing
    assert judge.tokens == 24


def test_a_second_search_takes_no_forward_and_the_same_way():
    known = {}
    ways = []
    for _ in range(2):
        rungs = Untouched()
        judge = ModelJudge(rungs, divided(windows(4), 1000), limit=60, known=known)
        way = [(judge.search_losses((0, rung)), judge.tokens, judge.looks_left) for rung in (1, 2)]
        with pytest.raises(Spent):
            judge.search_losses((3, 3))
        ways.append((way, judge.held_out_losses((0, 1))))
        known = json.loads(json.dumps(known))  # as it comes back from a disk
    assert ways[0] == ways[1]
    assert (rungs.applications, judge.forwards, judge.hits) == (0, 0, 3)


def test_rises_cost_three_looks_once_and_are_known_the_next_time():
    known = {}
    judge = ModelJudge(Untouched(), divided(windows(4), 1000), limit=24 * 5, known=known)
    rises = judge.rung_rises((0, 1))
    assert [rise_R.shape for rise_R in rises.parts] == [(3,), (3,)]
    assert rises.loss == pytest.approx(np.mean(judge.final_losses((0, 1))))
    assert (judge.tokens, judge.looks_left, judge.forwards) == (24 * 3, 2, 2)
    assert all(map(np.array_equal, judge.rung_rises((0, 1)).parts, rises.parts))
    assert (judge.tokens, judge.looks_left) == (24 * 3, 2)
    with pytest.raises(Spent):
        judge.rung_rises((1, 0))
    again = ModelJudge(Untouched(), judge.texts, limit=24 * 5, known=json.loads(json.dumps(known)))
    assert all(map(np.array_equal, again.rung_rises((0, 1)).parts, rises.parts))
    assert (again.tokens, again.forwards, again.hits) == (24 * 3, 0, 1)


def test_a_fold_is_every_fourth_window_and_costs_as_many():
    judge = ModelJudge(Untouched(), divided(windows(20), 10**6), limit=12 * 40)  # ten windows: folds of 3, 3, 2, 2
    losses = judge.final_losses((0, 1))
    folds = [judge.search_losses((0, 1), fold) for fold in range(judge.folds)]
    assert folds == [pytest.approx(losses[fold::4]) for fold in range(4)]
    assert [len(each) for each in folds] == [judge.size(fold) for fold in range(4)] == [3, 3, 2, 2]
    assert (judge.tokens, judge.looks_left) == (12 * 10, 3)
    assert judge.rung_rises((0, 1), 3).loss == pytest.approx(np.mean(losses[3::4]))
    assert (judge.tokens, judge.windows_left, judge.looks_left) == (12 * 16, 24, 2)
    assert judge.search_losses((0, 1)) == losses  # all windows are another question than the folds were
    assert judge.windows_left == 14


def test_few_windows_are_few_folds():
    judge = ModelJudge(Untouched(), divided(windows(4), 1000), limit=24)
    assert (judge.folds, judge.size(0), judge.size(1)) == (2, 1, 1)
