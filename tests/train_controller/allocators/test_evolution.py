import pytest

from tasks.train_controller.allocators.evolution import Evolution
from tests.train_controller.allocators.judges import MadeUp, a_problem, additive, all_levels, interacting


@pytest.mark.parametrize("kind", [additive, interacting])
@pytest.mark.parametrize("parents", [1, 3])
def test_it_finds_the_best_of_a_small_problem(kind, parents):
    problem = a_problem(2, 4, share=0.5)
    loss = kind(problem)
    found = Evolution(parents=parents, generations=200).search(problem, MadeUp(loss), {})
    assert loss(found.levels) <= min(map(loss, all_levels(problem)))


def test_its_best_never_becomes_worse():
    problem = a_problem()
    best = [move.best for move in Evolution(generations=30).search(problem, MadeUp(interacting(problem)), {}).moves]
    assert best == sorted(best, reverse=True)
    assert best[-1] < best[0]


@pytest.mark.parametrize("field", ["parents", "children", "generations", "switches"])
def test_bad_input_is_refused(field):
    with pytest.raises(ValueError, match=rf"^{field}: 0 given, valid is 1 "):
        Evolution(**{field: 0})
    with pytest.raises(ValueError, match=r"^stride: 1.5 given, valid is 0 < stride <= 1$"):
        Evolution(stride=1.5)
