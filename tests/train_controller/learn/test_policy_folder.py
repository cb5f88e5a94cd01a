import json
import re

import pytest
import torch

from tasks.train_controller.learn.bandit import LinUCB
from tasks.train_controller.learn.dqn import DoubleDQN
from tasks.train_controller.learn.policy_folder import load_policy, save_policy
from tests.train_controller.made_up import ACTIONS, a_table

LEARNED = {
    "bandit": LinUCB(passes=2, parts=2),
    "dqn": DoubleDQN(passes=2, parts=2, hidden=8, every=8),
}


@pytest.fixture(scope="module", params=LEARNED)
def policy(request):
    return LEARNED[request.param].learn(a_table(40), 0.05, 0)


@pytest.fixture
def folder(policy, tmp_path):
    save_policy(policy, tmp_path, "model-1", "profiles-1")
    return tmp_path


def test_what_is_loaded_scores_bit_for_bit_as_what_was_saved(policy, folder):
    loaded = load_policy(folder, actions=ACTIONS, model_hash="model-1", profiles_hash="profiles-1")
    assert (loaded.learner, loaded.floor, loaded.features) == (policy.learner, 0.05, policy.features)
    for state_F in torch.rand(50, len(policy.features), generator=torch.Generator().manual_seed(1)):
        assert torch.equal(loaded.scores_A(state_F), policy.scores_A(state_F))
    assert torch.equal(loaded.choices(a_table(30, 9).state_PF), policy.choices(a_table(30, 9).state_PF))
    assert vars(loaded.guard).keys() == vars(policy.guard).keys()
    assert (loaded.guard.margin, loaded.guard.bound) == (policy.guard.margin, policy.guard.bound)


def test_the_same_seed_gives_the_same_bytes(policy, folder, tmp_path):
    again = LEARNED[policy.learner].learn(a_table(40), 0.05, 0)
    save_policy(again, tmp_path / "again", "model-1", "profiles-1")
    for file in ("policy.json", "policy.safetensors"):
        assert (folder / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            {"actions": ("none", "ffn20")},
            "is of the actions none, ffn10, ffn20, ffn30, ffn50, valid is one of none, ffn20",
        ),
        ({"actions": tuple(reversed(ACTIONS))}, "is of the actions"),
        ({"model_hash": "model-2"}, "is of model model-1, valid is one of model-2"),
        ({"profiles_hash": "profiles-2"}, "is of profiles profiles-1, valid is one of profiles-2"),
    ],
)
def test_one_that_was_made_for_something_else_is_refused(folder, asked, says):
    with pytest.raises(ValueError, match=says) as error:
        load_policy(folder, **asked)
    assert "\n" not in str(error.value)


def change(folder, **entries):
    file = folder / "policy.json"
    index = json.loads(file.read_text()) | entries
    file.write_text(json.dumps({name: value for name, value in index.items() if value is not None}))


def test_a_learner_that_is_unknown_is_refused(folder):
    change(folder, learner="oracle")
    with pytest.raises(ValueError, match="is of learner 'oracle', valid is dqn, bandit"):
        load_policy(folder)


def test_damaged_tensors_are_refused(folder):
    good = (folder / "policy.safetensors").read_bytes()
    for bad in (good[:-8], good[:-1] + bytes([good[-1] ^ 1]), b""):
        (folder / "policy.safetensors").write_bytes(bad)
        with pytest.raises(ValueError, match=re.escape(str(folder / "policy.safetensors"))) as error:
            load_policy(folder)
        assert "\n" not in str(error.value)
    (folder / "policy.safetensors").write_bytes(good)
    assert load_policy(folder).actions == ACTIONS


@pytest.mark.parametrize(
    "damage",
    [
        {"settings": {}},
        {"settings": None},
        {"floor": None},
        {"features": ["cpu_use", "battery"]},
        {"actions": ["none"]},
    ],
)
def test_an_index_that_does_not_fit_is_refused(folder, damage):
    change(folder, **damage)
    with pytest.raises(ValueError, match=r"policy\.json does not fit its tensors") as error:
        load_policy(folder)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_policy_is_refused(folder, tmp_path):
    (folder / "policy.json").write_text("{")
    for where, why in ((folder, "is not JSON"), (tmp_path / "nowhere", "cannot be read")):
        with pytest.raises(ValueError, match=rf"policy\.json {why}"):
            load_policy(where)
