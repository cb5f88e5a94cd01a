"""The mixture: shares by weight at every point, an order by the seed alone, windows of one source each."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from tasks.data.mixture import UNTRAINED, Part, draw, mix, shuffled

WINDOW = 4


def part(source: str, first: int, windows: int, **changes) -> Part:
    """Its ids are consecutive numbers, so a window can be told by its first."""
    return Part(source=source, ids_T=torch.arange(first, first + windows * WINDOW), **changes)


PARTS = [part("web", 0, 60, weight=6.0), part("code", 1000, 30, weight=3.0), part("books", 2000, 10)]


def test_windows_are_those_of_the_texts_each_with_its_source():
    mixed = mix(PARTS, window=WINDOW, tokens=60 * WINDOW)
    assert mixed.sources == ("web", "code", "books")
    assert Counter(mixed.source_N.tolist()) == {0: 60, 1: 30, 2: 10}
    assert torch.equal(mixed.ids_NW[:, 0] // 1000, mixed.source_N)
    assert torch.equal(mixed.ids_NW, mixed.ids_NW[:, :1] + torch.arange(WINDOW))
    assert torch.equal(mixed.labels_NW, mixed.ids_NW)


def test_an_epoch_of_everything_is_every_window_once():
    mixed = mix(PARTS, window=WINDOW, tokens=100 * WINDOW)
    assert sorted(mixed.order_S.tolist()) == list(range(100))
    assert mixed.order_S.tolist() != list(range(100))


@pytest.mark.parametrize("weights", [[6, 3, 1], [1, 1], [0.01, 0.9, 0.09], [5], [1, 2, 3, 4, 5, 60]])
def test_every_beginning_holds_the_sources_in_their_shares(weights):
    drawn = draw(weights, 500).tolist()
    for index, weight in enumerate(weights):
        share = weight / sum(weights)
        for end in range(1, 501):
            assert abs(drawn[:end].count(index) - end * share) <= 0.5 + share * len(weights) / 2


def test_three_to_one_goes_two_before_one_after():
    """The windows of the first stand at 2/3, 2, 10/3, 14/3, …, those of the second at 2, 6, …"""
    assert draw([3, 1], 8).tolist() == [0, 0, 1, 0, 0, 0, 1, 0]


def test_the_order_follows_from_the_seed():
    first, again = (mix(PARTS, window=WINDOW, tokens=40 * WINDOW, seed=3) for _ in range(2))
    other = mix(PARTS, window=WINDOW, tokens=40 * WINDOW, seed=4)
    assert torch.equal(first.order_S, again.order_S)
    assert not torch.equal(first.order_S, other.order_S)


def test_a_longer_training_begins_like_a_shorter_one():
    short, long = (mix(PARTS, window=WINDOW, tokens=windows * WINDOW) for windows in (30, 90))
    assert torch.equal(short.order_S, long.order_S[:30])


def test_the_order_within_a_source_depends_on_no_other_source():
    alone = mix([PARTS[1]], window=WINDOW, tokens=20 * WINDOW)
    mixed = mix(PARTS, window=WINDOW, tokens=60 * WINDOW)
    theirs = mixed.ids_NW[mixed.order_S]
    theirs = theirs[theirs[:, 0] // 1000 == 1]
    assert torch.equal(alone.ids_NW[alone.order_S][: len(theirs)], theirs)


def test_an_exhausted_source_is_an_error_or_begins_again_in_a_new_order():
    parts = [PARTS[0], replace(PARTS[2], weight=6.0)]
    with pytest.raises(ValueError, match=r"^tokens: 160 given, which take 20 windows of books; it has 10: valid are"):
        mix(parts, window=WINDOW, tokens=40 * WINDOW)
    mixed = mix(parts, window=WINDOW, tokens=40 * WINDOW, exhausted="repeat")
    books = mixed.order_S[mixed.source_N[mixed.order_S] == 1].tolist()
    assert sorted(books[:10]) == sorted(books[10:]) == list(range(60, 70))
    assert books[:10] != books[10:]


def test_epochs_follow_each_other_without_end():
    order = shuffled("text", 7, 24, seed=0).tolist()
    assert [sorted(order[start : start + 7]) for start in (0, 7, 14)] == [list(range(7))] * 3
    assert len(order) == 24
    assert shuffled("text", 7, 0, seed=0).tolist() == []


def test_labels_stay_with_their_ids_and_silent_windows_are_left_out():
    chat = part("chat", 0, 4)
    labels_T = chat.ids_T.clone()
    labels_T[4:8] = UNTRAINED
    labels_T[9:12] = UNTRAINED  # what is left of the third, its first token, cannot be learned
    labels_T[13] = UNTRAINED
    mixed = mix([replace(chat, labels_T=labels_T)], window=WINDOW, tokens=2 * WINDOW)
    assert mixed.ids_NW.tolist() == [[0, 1, 2, 3], [12, 13, 14, 15]]
    assert mixed.labels_NW.tolist() == [[0, 1, 2, 3], [12, -100, 14, 15]]


@pytest.mark.parametrize(
    ("parts", "options", "complaint"),
    [
        ([], {}, "sources: none given"),
        ([PARTS[0], PARTS[0]], {}, "sources: web, web given"),
        ([replace(PARTS[0], weight=0.0)], {}, "weight: 0.0 given for web"),
        ([replace(PARTS[0], weight=float("nan"))], {}, "weight: nan given for web"),
        ([replace(PARTS[0], labels_T=torch.zeros(3))], {}, "labels: 3 given for the 240 ids of web"),
        ([replace(PARTS[0], labels_T=torch.full((240,), -100))], {}, "source: web has no window of 4 tokens"),
        ([part("short", 0, 1)], {"window": 5}, "window: text has 4 tokens, fewer than one window of 5 .source short."),
        (PARTS, {"window": 1}, "window: 1 given, valid is 2 or more"),
        (PARTS, {"tokens": 3}, "tokens: 3 given, fewer than one window of 4"),
        (PARTS, {"exhausted": "stop"}, "exhausted: 'stop' given, valid is error or repeat"),
    ],
)
def test_mistakes_get_one_line(parts, options, complaint):
    with pytest.raises(ValueError, match=f"^{complaint}") as error:
        mix(parts, **{"window": WINDOW, "tokens": 8, **options})
    assert "\n" not in str(error.value)
