"""The stages of Adapt-Accel: targets on a straight line, shares that rise, and no step left out or done twice."""

from fractions import Fraction

import pytest

from tasks.recover.stages import cut_stages, least_steps


@pytest.mark.parametrize("stages", [1, 2, 3, 9, 20])
@pytest.mark.parametrize("more", [0, 1, 7, 1000])
def test_the_kth_stage_leaves_and_trains_what_the_formula_says(stages, more):
    before, target, steps = 376_100_003, 143_100_000, least_steps(stages) + more
    made = cut_stages(parameters=before, target=target, stages=stages, steps=steps)
    for k, stage in enumerate(made, start=1):
        assert stage.stage == k
        assert 0 <= stage.target - (before - Fraction(before - target) * k / stages) < 1
        done = Fraction(steps) * sum(Fraction(2 * j, stages * (stages + 1)) for j in range(1, k + 1))
        assert abs(stage.span.last - done) <= Fraction(1, 2)
    assert made[-1].target == target
    assert [number for stage in made for number in range(stage.span.first, stage.span.last)] == list(range(steps))


def test_a_hand_worked_example():
    first, second, third = cut_stages(parameters=100, target=40, stages=3, steps=12)
    assert [each.target for each in (first, second, third)] == [80, 60, 40]
    assert [(each.span.first, each.span.last) for each in (first, second, third)] == [(0, 2), (2, 6), (6, 12)]


@pytest.mark.parametrize("stages", [1, 2, 5, 20])
def test_with_the_least_steps_every_stage_has_one_and_with_fewer_it_is_refused(stages):
    least = least_steps(stages)
    assert all(each.span.steps >= 1 for each in cut_stages(parameters=90, target=10, stages=stages, steps=least))
    if least > 1:
        with pytest.raises(ValueError, match=rf"^steps: {least - 1} given for {stages} stages, valid is {least} or"):
            cut_stages(parameters=90, target=10, stages=stages, steps=least - 1)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"target": 100}, "target_parameters: 100 given, the model has 100; valid is less"),
        ({"target": 0}, "target_parameters: 0 given"),
        ({"stages": 0}, "stages: 0 given, valid is 1 or more"),
        ({"stages": 61, "steps": 10**6}, "stages: 61 given to cut 60 parameters, valid is 1 to 60"),
    ],
)
def test_what_makes_no_sense_gets_one_line(changes, complaint):
    with pytest.raises(ValueError, match=f"^{complaint}"):
        cut_stages(**{"parameters": 100, "target": 40, "stages": 3, "steps": 12} | changes)
