"""How many units go, against trying every number of heads with every width."""

import itertools

import pytest

from tasks.prune.structure.ladder import Ladder, divisions, spend

CASES = [  # parameters of a head and how many there are, of a channel, and the widths that may stay
    (576, range(8, 0, -1), 30, range(300, 0, -10)),
    (5000, range(2, 0, -1), 9, [333, *range(320, 0, -64)]),  # a head larger than any step, a width that is no multiple
    (100, range(16, 0, -4), 70, range(400, 0, -100)),  # channels in larger steps than heads
]
BUDGETS = (0.04, 0.2, 1 / 3, 0.5, 0.7)


def ladders(head, heads, channel, widths):
    return [Ladder(kind="query_heads", counts=heads, each=head), Ladder(kind="channels", counts=widths, each=channel)]


def missed(case, counts, wanted):
    head, heads, channel, widths = case
    return abs(head * (heads[0] - counts["query_heads"]) + channel * (widths[0] - counts["channels"]) - wanted)


def asked(case, budget):
    head, heads, channel, widths = case
    wanted = budget * (head * heads[0] + channel * widths[0])
    return wanted, min(head * (heads[0] - heads[1]), channel * (widths[0] - widths[1]))


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("case", CASES)
def test_every_number_of_heads_that_can_meet_the_budget_is_found_and_no_other(case, budget):
    _, heads, _, widths = case
    wanted, step = asked(case, budget)
    found, by_size = divisions(wanted, ladders(*case)), spend(wanted, ladders(*case))
    least = {
        stay: min(missed(case, {"query_heads": stay, "channels": width}, wanted) for width in widths) for stay in heads
    }
    room = max(step / 2, min(least.values()))
    for stay in heads:
        if heads[0] - stay in found:
            assert missed(case, found[heads[0] - stay], wanted) == pytest.approx(least[stay])
            assert least[stay] <= room + 1e-6
        else:
            assert least[stay] > room
    assert list(found) == sorted(found)
    gone = heads[0] - by_size["query_heads"]
    assert found.get(gone, by_size) == by_size
    assert (gone in found) == (missed(case, by_size, wanted) <= room + 1e-6)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("case", CASES)
def test_by_size_both_kinds_lose_the_same_share_but_for_the_steps(case, budget):
    head, heads, channel, widths = case
    wanted, _ = asked(case, budget)
    counts = spend(wanted, ladders(*case))
    share = wanted / (head * heads[0] + channel * widths[0])
    assert abs(heads[0] - counts["query_heads"] - share * heads[0]) <= heads[0] - heads[1]
    rounded = [stay for stay in heads if abs(heads[0] - stay - share * heads[0]) < heads[0] - heads[1]]
    either = itertools.product(rounded, widths)
    best = min(missed(case, {"query_heads": stay, "channels": width}, wanted) for stay, width in either)
    assert missed(case, counts, wanted) == pytest.approx(best)


def test_of_one_kind_or_of_none_there_is_one_way():
    channels = ladders(*CASES[0])[1]
    assert divisions(2000.0, [channels]) == {0: {"channels": 230}}
    assert divisions(2000.0, []) == {0: {}}
    assert divisions(0.0, ladders(*CASES[0])) == {0: {}}


def test_the_nearest_is_on_either_side_and_of_two_the_larger_first():
    ladder = Ladder(kind="channels", counts=[70, 64, 32, 16], each=10)
    assert ladder.nearest(60) == [64, 70]
    assert ladder.nearest(220) == [64, 32]
    assert ladder.nearest(10_000) == [16, 32]
    assert ladder.nearest(0) == [70, 64]
    assert Ladder(kind="channels", counts=[8], each=1).nearest(3) == [8]
