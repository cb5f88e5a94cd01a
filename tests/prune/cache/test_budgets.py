"""Which positions each budget keeps, by hand."""

import math

import pytest
import torch

from tasks.prune import KV_BUDGETS
from tasks.prune.cache.budget import best
from tasks.prune.cache.key_norm import KeyNorm
from tasks.prune.cache.methods import parse_budget
from tasks.prune.cache.snapkv import SnapKV, mean_attention
from tasks.prune.cache.window import SlidingWindow

RATIOS = [0.07, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]


def states(prompts=2, queries=4, heads=2, tokens=20, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    key, value, query = (
        torch.randn(prompts, count, tokens, width, generator=generator) for count in (heads, heads, queries)
    )
    return key, value, query


def test_the_window_keeps_its_sinks_and_the_latest():
    key, value, _ = states(tokens=10)
    kept = SlidingWindow(ratio=0.6).keep(key, value)
    assert kept.tolist() == [[[0, 1, 2, 3, 8, 9]] * 2] * 2
    assert SlidingWindow(ratio=0.3, sinks=1).keep(key, value)[1, 1].tolist() == [0, 8, 9]
    assert SlidingWindow(ratio=0.25, sinks=0).keep(key, value)[0, 0].tolist() == [7, 8, 9]
    assert SlidingWindow(ratio=0.1).keep(key, value)[0, 0].tolist() == [0, 1, 2, 3, 9]  # never without a latest one


def test_key_norm_keeps_the_smallest_keys_and_of_equal_ones_the_first():
    lengths = [[5.0, 1.0, 3.0, 2.0, 4.0, 1.5], [1.0, 2.0, 2.0, 2.0, 0.5, 2.0]]
    key = torch.tensor(lengths)[None, :, :, None] * torch.tensor([0.6, -0.8])  # l2 norms are the lengths
    assert KeyNorm(ratio=0.5).keep(key, key).tolist() == [[[1, 3, 5], [0, 1, 4]]]
    assert KeyNorm(ratio=0.01).keep(key, key).tolist() == [[[1], [4]]]


def test_attention_by_hand():
    """Two tokens look back, the logits are logarithms; the last but one does not see the last."""
    key = torch.tensor([1.0, 2.0, 5.0, 2.0]).log()[None, None, :, None]
    query = torch.tensor([[1.0, 1.0], [1.0, 0.0]])[None, :, :, None]  # two query heads, two tokens each
    first = [torch.tensor([1, 2, 5, 0]) / 8, torch.tensor([1, 2, 5, 2]) / 10]  # q = 1: weights as the keys say
    second = [torch.tensor([1, 2, 5, 0]) / 8, torch.ones(4) / 4]  # q = 0: all alike
    expected = torch.stack([*first, *second]).mean(dim=0)
    torch.testing.assert_close(mean_attention(key, query)[0, 0], expected)


def snap(attention, **how):
    """What SnapKV keeps where a window of one, behind the others, attends in these proportions."""
    key = torch.tensor([*attention, 1.0]).log()[None, None, :, None]
    return SnapKV(window=1, **how).keep(key, key, torch.ones(1, 1, 1, 1))[0, 0].tolist()


def test_snapkv_keeps_its_window_and_the_most_attended():
    assert snap([1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0], ratio=0.5, pool=1) == [1, 3, 5, 7]
    assert snap([1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0], ratio=0.25, pool=1) == [1, 7]


def test_snapkv_pools_the_maximum_over_neighbours_before_the_window():
    """Pooled over 3: 9 9 9 3 3 3 5 6 6; the neighbours of the largest stay with it, before the second largest."""
    attention = [1.0, 9.0, 1.0, 2.0, 3.0, 1.0, 3.0, 5.0, 6.0]
    assert snap(attention, ratio=0.4, pool=3) == [0, 1, 2, 9]
    assert snap(attention, ratio=0.5, pool=3) == [0, 1, 2, 7, 9]


def test_snapkv_averages_the_query_heads_of_a_kv_head():
    """Each alone would keep its own favourite; on average both prefer the position in the middle."""
    key = torch.eye(4)[None, None].expand(1, 2, 4, 4) * 2  # attention is a softmax of the query's entries
    alike = torch.tensor([[3.0, 2.8, 0.0, 0.0], [0.0, 2.8, 3.0, 0.0]])
    query = torch.cat([alike, torch.tensor([[4.0, 0, 0, 0], [4.0, 0, 0, 0]])])[None, :, None]
    assert SnapKV(ratio=0.5, window=1, pool=1).keep(key, key, query).tolist() == [[[1, 3], [0, 3]]]


def test_snapkv_equals_brute_force_in_float64():
    key, value, query = states(tokens=17)
    window, pool, count = 3, 5, 9
    kept = SnapKV(ratio=0.5, window=window, pool=pool).keep(key, value, query)
    for prompt in range(2):
        for head in range(2):
            total = [0.0] * 17
            for each in (2 * head, 2 * head + 1):
                for token in range(17 - window, 17):
                    q = query[prompt, each, token].double()
                    weight = [math.exp(float(q @ key[prompt, head, t].double()) / 8**0.5) for t in range(token + 1)]
                    for position, one in enumerate(weight):
                        total[position] += one / sum(weight) / (2 * window)
            earlier = total[: 17 - window]
            pooled = [max(earlier[max(0, t - 2) : t + 3]) for t in range(len(earlier))]
            chosen = sorted(sorted(range(len(pooled)), key=lambda t: (-pooled[t], t))[: count - window])
            assert kept[prompt, head].tolist() == [*chosen, 14, 15, 16]


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("tokens", [1, 3, 6, 7, 30, 100])
@pytest.mark.parametrize("name", KV_BUDGETS)
def test_every_budget_keeps_the_ceiling_ascending_and_no_less_than_its_least(name, tokens, ratio):
    budget = KV_BUDGETS[name](ratio=ratio, **({"window": 5} if name == "snapkv" else {}))
    key, value, query = states(tokens=tokens)
    kept = budget.keep(key, value, query)
    share = -(-int(ratio * 100 + 0.5) * tokens // 100)  # in whole hundredths, so that 0.7 of 10 are 7
    least = {"window": 5, "snapkv": 5, "key_norm": 1}[name]
    assert kept.shape == (2, 2, min(tokens, max(least, share)))
    assert kept.dtype == torch.int64
    assert (kept.diff() > 0).all()
    assert kept.min() >= 0
    assert kept.max() < tokens
    assert kept.shape[2] == budget.count(tokens)


@pytest.mark.parametrize("name", KV_BUDGETS)
def test_each_prompt_of_a_batch_is_on_its_own(name):
    budget = KV_BUDGETS[name](ratio=0.4, **({"window": 2} if name == "snapkv" else {}))
    key, value, query = states()
    both = budget.keep(key, value, query)
    for prompt in range(2):
        one = slice(prompt, prompt + 1)
        assert torch.equal(budget.keep(key[one], value[one], query[one]), both[one])


def test_half_precision_is_compared_in_float32():
    key, value, query = (each.bfloat16() for each in states())
    for budget in (KeyNorm(ratio=0.4), SnapKV(ratio=0.4, window=2)):
        wide = budget.keep(key.float(), value.float(), query.float())
        assert torch.equal(budget.keep(key, value, query), wide)


def test_the_best_of_none_and_of_ties():
    assert best(torch.zeros(2, 3, 5), 0).shape == (2, 3, 0)
    assert best(torch.zeros(1, 1, 20), 3).tolist() == [[[0, 1, 2]]]


def test_queries_are_needed_by_snapkv_alone():
    key, value, query = states()
    assert [KV_BUDGETS[name](ratio=0.5).needs_queries for name in KV_BUDGETS] == [False, True, False]
    assert SnapKV(ratio=0.5, window=6).observed == 6
    with pytest.raises(ValueError, match=r"query: those of 0 tokens given, snapkv:0.5 needs 20"):
        SnapKV(ratio=0.5).keep(key, value)
    with pytest.raises(ValueError, match=r"query: those of 5 tokens given, snapkv:0.5,window=6 needs 6"):
        SnapKV(ratio=0.5, window=6).keep(key, value, query[:, :, -5:])


@pytest.mark.parametrize("name", KV_BUDGETS)
@pytest.mark.parametrize("ratio", [0, -0.5, 1.01, float("nan")])
def test_a_ratio_outside_is_refused(name, ratio):
    with pytest.raises(ValueError, match=r"ratio: .* given, valid is above 0 and at most 1"):
        KV_BUDGETS[name](ratio=ratio)


@pytest.mark.parametrize(("method", "how"), [(SlidingWindow, {"sinks": -1}), (SnapKV, {"window": 0})])
def test_other_numbers_outside_are_refused(method, how):
    with pytest.raises(ValueError, match=f"{next(iter(how))}: .* given, valid is . or more"):
        method(ratio=0.5, **how)


@pytest.mark.parametrize("pool", [0, 2, -1])
def test_a_pool_has_a_middle(pool):
    with pytest.raises(ValueError, match=r"pool: .* given, valid is an odd number"):
        SnapKV(ratio=0.5, pool=pool)


WORDS = {
    "window:0.5": SlidingWindow(ratio=0.5),
    "window:0.25,sinks=8": SlidingWindow(ratio=0.25, sinks=8),
    "snapkv:0.25": SnapKV(ratio=0.25),
    "snapkv:0.1,window=16,pool=3": SnapKV(ratio=0.1, window=16, pool=3),
    "key_norm:1.0": KeyNorm(ratio=1),
}


@pytest.mark.parametrize("text", WORDS)
def test_a_budget_is_read_from_its_words_and_says_them(text):
    assert parse_budget(text) == WORDS[text]
    assert str(WORDS[text]) == text


def test_defaults_may_be_named():
    assert parse_budget(" snapkv:0.25,window=32,pool=7 ") == SnapKV(ratio=0.25)
    assert parse_budget("window:.5") == SlidingWindow(ratio=0.5)


@pytest.mark.parametrize(
    "text",
    [
        "", "window", "window:", "window:0", "window:2", "window:half", "window:nan", "window:0.5,sinks", "h2o:0.5",
        "window:0.5,window=3", "snapkv:0.5,ratio=1", "snapkv:0.5,pool=2", "snapkv:0.5,pool=3,pool=5", "window:-0.5",
    ],
)  # fmt: skip
def test_other_words_are_refused_in_one_line(text):
    with pytest.raises(ValueError, match=r"actions: .* given.* valid is window:0\.5, snapkv") as caught:
        parse_budget(text)
    assert "\n" not in str(caught.value)
