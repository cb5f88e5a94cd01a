import pytest
import torch

from tasks.train_controller.learn.bandit import LinUCB
from tasks.train_controller.learn.dqn import DoubleDQN
from tasks.train_controller.learn.guard import LIMIT
from tasks.train_controller.learn.policy import Standard
from tasks.train_controller.observation import FEATURES, HARDWARE_FEATURES
from tests.train_controller.made_up import ACTIONS, STILL, a_table

LEARNERS = [LinUCB(passes=2, parts=2, target=0.1), DoubleDQN(passes=15, parts=2, hidden=32, target=0.1)]


@pytest.fixture(scope="module", params=LEARNERS, ids=lambda each: each.name)
def policy(request):
    return request.param.learn(a_table(80), 0.1, 0)


def test_it_takes_the_best_of_those_that_meet_the_floor_and_none_always_does(policy):
    fresh = a_table(60, 1)
    value_PA, strain_PA = policy.predictor.predict(fresh.state_PF)
    for row, state_F in enumerate(fresh.state_PF):
        score_A = policy.scores_A(state_F)
        met = [a for a in range(5) if strain_PA[row, a] + policy.guard.margin * policy.guard.spread_A[a] <= LIMIT]
        allowed = {0, *met, *policy.guard.free_A.nonzero()[:, 0].tolist()}
        assert {a for a in range(5) if score_A[a] > -torch.inf} == allowed
        assert policy.choose(state_F) == max(sorted(allowed), key=lambda a: score_A[a].item())
        assert score_A[sorted(allowed)].tolist() == pytest.approx(value_PA[row, sorted(allowed)].tolist())
    assert policy.choices(fresh.state_PF).unique().numel() > 1


def test_a_state_as_the_observation_gives_it_is_taken(policy):
    state_F = a_table(1, 5).state_PF[0].float()
    assert policy.choose(state_F) == policy.choose(state_F)
    assert policy.scores_A(state_F).shape == (len(ACTIONS),)


def test_so_little_is_computed_that_a_choice_takes_no_time(policy):
    assert sum(tensor.numel() for tensor in policy.predictor.tensors.values()) < 20_000


@pytest.mark.parametrize(
    ("state_F", "says"),
    [
        (torch.zeros(4), r"state: \(4,\) given, valid is 13 finite numbers"),
        (torch.zeros(1, 13), r"state: \(1, 13\) given, valid is 13 finite numbers"),
        (torch.full((13,), torch.nan), "state: a number that is not finite given, valid is 13 finite numbers"),
    ],
)
def test_what_is_no_state_is_refused(policy, state_F, says):
    with pytest.raises(ValueError, match=says):
        policy.choose(state_F)


def test_states_are_standardised_as_the_training_prompts_were():
    state_PF = a_table(90).state_PF
    standard = Standard.of(state_PF, FEATURES)
    seen_PF = standard(state_PF)
    moving = [number for number, name in enumerate(FEATURES) if name not in STILL]
    assert seen_PF[:, moving].mean(0).tolist() == pytest.approx([0] * len(moving), abs=1e-9)
    assert seen_PF[:, moving].square().mean(0).tolist() == pytest.approx([1] * len(moving))
    other_PF = 1 - state_PF
    assert not standard(other_PF)[:, [FEATURES.index(name) for name in STILL]].any()  # never seen to move: ignored
    assert standard(100 * state_PF).abs().max() == 3  # and nothing counts as further away
    whole_PF, prompt_PF = standard.views(state_PF)
    assert torch.equal(whole_PF, seen_PF)
    assert not prompt_PF[:, : len(HARDWARE_FEATURES)].any()
    assert torch.equal(prompt_PF[:, len(HARDWARE_FEATURES) :], seen_PF[:, len(HARDWARE_FEATURES) :])
