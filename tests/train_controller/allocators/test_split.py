import numpy as np
import pytest

from tasks.train_controller.allocators.split import Split
from tests.train_controller.allocators.judges import MadeUp, a_problem


def gone_of(problem, levels, kind):
    own = zip(problem.parts, levels, problem.rungs, strict=True)
    return [rungs / most for part, rungs, most in own if part.kind == kind]


def test_it_takes_from_the_kind_of_part_that_costs_less_and_from_all_of_it_alike():
    """Of 4 blocks 8 rungs each, half of everything goes: nothing of the attentions, all of the FFNs that can."""
    problem = a_problem(4, 8, share=0.5, ffn_cost=1)

    def loss(levels):
        return 10 * sum(gone_of(problem, levels, "attention")) + sum(gone_of(problem, levels, "ffn"))

    found = Split().search(problem, MadeUp(loss), {})
    assert problem.meets(found.levels)
    assert gone_of(problem, found.levels, "attention") == [0] * 4
    assert len(found.moves) == 10  # uniform levels and nine divisions


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_every_division_meets_the_budget_and_is_even_within_a_kind(share):
    problem, seen = a_problem(3, 6, share=share), []

    def loss(levels):
        seen.append(levels)
        return 1.0

    Split(points=5).search(problem, MadeUp(loss), {})
    for levels in seen:
        assert problem.meets(levels)
        for kind in ("attention", "ffn"):
            assert np.ptp(gone_of(problem, levels, kind)) <= 1 / 6 + 1e-9  # but for rounding to a rung


def test_of_one_point_there_is_no_choice():
    with pytest.raises(ValueError, match=r"^points: 1 given, valid is 2 to 1000$"):
        Split(points=1)
