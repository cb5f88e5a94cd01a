import pytest
import torch

from tasks.train_controller.learn.reward import Reward


@pytest.mark.parametrize(
    ("reward", "ratio", "rise", "paid"),
    [
        (Reward(), 1.5, 0.05, 1.5),  # the floor is just met
        (Reward(), 1.5, 0.15, 1.5 - 3 * 0.1),
        (Reward(), 1.5, 7.0, 1.5 - 1.0),  # no more can be lost
        (Reward(tolerance=0.0), 1.5, 0.05, 1.5 - 3 * 0.05),  # as CASRAP
        (Reward(tolerance=0.0), 1.5, -0.2, 1.5),  # nothing is paid for a text that became likelier
        (Reward(quality=10.0, most=2.0), 1.5, 0.15, 1.5 - 10 * 0.1),
        (Reward(quality=0.0), 1.5, 7.0, 1.5),
    ],
)
def test_it_is_the_speed_less_what_the_rise_costs(reward, ratio, rise, paid):
    assert reward.once(ratio, rise, 0.05) == pytest.approx(paid)
    of_both = reward.of(torch.tensor([ratio, 1.0]), torch.tensor([rise, 0.0]), 0.05)  # float32
    assert of_both.tolist() == pytest.approx([paid, 1.0])


@pytest.mark.parametrize("field", ["quality", "tolerance", "most"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_weights_are_checked(field, value):
    with pytest.raises(ValueError, match=f"{field}: {value} given, valid is 0 or more"):
        Reward(**{field: value})
