"""The loss of a reference and the distance to the uncut model, against float64 done token by token and by masks.

Axes: T positions of the prompt, R of the reference, S of both, V vocabulary.
"""

import math

import pytest
import torch
from transformers import DynamicCache

from tasks.prune.cache.methods import parse_budget
from tasks.train_controller.act.actions import Action
from tasks.train_controller.act.prefill import prefill
from tasks.train_controller.measure import quality
from tasks.train_controller.measure.quality import judge
from tests.cases import BLOCKS, batches, llama
from tests.prune.structure.profiled import built

PROMPT, REFERENCE = batches((1, 14), (1, 9))
HEADS = {  # profile of `built` -> the block and the KV heads that each slot of its cache comes from
    "ffn": [(block, [0, 1]) for block in range(BLOCKS)],
    "heads": [(0, [1]), (1, [0, 1]), (2, [0])],
    "depth": [(0, [0, 1]), (2, [0, 1])],
}


@pytest.fixture(scope="module")
def profiles():
    return built(llama().double())


def measured(profiles, action):
    read = prefill(profiles, PROMPT, budgets=[action.budget] if action.budget else [])
    (found,) = judge(profiles, read, REFERENCE, [action])
    return found


@torch.no_grad()
def dense_logits(profiles):
    """(R, V): what the uncut model predicts each token of the reference by."""
    logits_SV = profiles.model(torch.cat([PROMPT, REFERENCE], 1)).logits[0]
    return logits_SV[PROMPT.shape[1] - 1 : -1]


def expected(dense_RV, logits_RV):
    log_p_RV, log_q_RV = (each - each.logsumexp(-1, keepdim=True) for each in (dense_RV, logits_RV))
    rows = range(REFERENCE.shape[1])
    nll, dense_nll = (-sum(each[row, REFERENCE[0, row]] for row in rows) / len(rows) for each in (log_q_RV, log_p_RV))
    kl = sum((log_p_RV[row].exp() * (log_p_RV[row] - log_q_RV[row])).sum() for row in rows) / len(rows)
    return [float(each) for each in (nll, dense_nll, kl)]


def check(found, wanted):
    assert [found.nll, found.dense_nll, found.kl] == pytest.approx(wanted, abs=1e-7)  # the first token's is float32
    assert found.rise == pytest.approx(math.exp(wanted[0]) / math.exp(wanted[1]) - 1, abs=1e-6)


def test_the_whole_model_loses_nothing(profiles):
    found = measured(profiles, Action())
    check(found, expected(dense_logits(profiles), dense_logits(profiles)))
    assert (found.rise, found.kl, found.nll) == (0.0, 0.0, found.dense_nll)


def test_the_whole_model_under_another_name_is_measured_and_loses_nothing(profiles):
    class Again(Action):
        def __str__(self):
            return "none again"

    found = measured(profiles, Again())
    assert (found.rise, found.kl) == (0.0, 0.0)


@pytest.mark.parametrize("name", HEADS)
def test_profiles_go_on_from_the_uncut_models_prompt(profiles, name):
    with torch.no_grad():
        output = profiles.model(PROMPT, use_cache=True)
        rows, cache = [output.logits[0, -1]], DynamicCache()
        for slot, (block, heads) in enumerate(HEADS[name]):
            layer = output.past_key_values.layers[block]
            cache.update(layer.keys[:, heads], layer.values[:, heads], slot)
        with profiles.using(name) as model:
            for token in REFERENCE[0, :-1]:
                rows.append(model(token.view(1, 1), past_key_values=cache, use_cache=True).logits[0, -1])
    wanted = expected(dense_logits(profiles), torch.stack(rows))
    check(measured(profiles, Action(profile=name)), wanted)
    assert wanted[2] > 1e-4  # the cut is felt


def test_a_budget_is_blindness_for_a_part_of_the_prompt(profiles):
    tokens, after = PROMPT.shape[1], REFERENCE.shape[1]
    action = Action(budget=parse_budget("window:0.5,sinks=2"))
    sees_SS = torch.ones(tokens + after, tokens + after, dtype=torch.bool).tril()
    sees_SS[tokens:, 2 : tokens - 5] = False  # 7 of 14 stay: 2 sinks and the last 5
    with torch.no_grad():
        logits_SV = profiles.model(torch.cat([PROMPT, REFERENCE], 1), attention_mask=sees_SS[None, None]).logits[0]
    wanted = expected(dense_logits(profiles), logits_SV[tokens - 1 : -1])
    check(measured(profiles, action), wanted)
    assert wanted[2] > 1e-4


@pytest.mark.parametrize("budget", ["window:1.0", "snapkv:1.0", "key_norm:1.0"])
def test_a_budget_of_everything_loses_nothing(profiles, budget):
    found = measured(profiles, Action(budget=parse_budget(budget)))
    assert (found.rise, found.kl) == (0.0, 0.0)


def test_chunks_change_nothing_but_rounding(profiles, monkeypatch):
    whole = measured(profiles, Action(profile="all"))
    monkeypatch.setattr(quality, "LOGITS_AT_ONCE", 1)
    parts = measured(profiles, Action(profile="all"))
    assert [parts.nll, parts.kl] == pytest.approx([whole.nll, whole.kl], rel=1e-12)


def test_a_reference_of_one_token_is_predicted_by_the_prompt_alone(profiles):
    read = prefill(profiles, PROMPT)
    none, cut = judge(profiles, read, REFERENCE[:, :1], [Action(), Action(profile="ffn")])
    assert none == cut
    assert none.nll == pytest.approx(-read.logits_LV[-1].double().log_softmax(0)[REFERENCE[0, 0]].item())


def test_a_broken_profile_is_told(profiles):
    with profiles.using("ffn") as model:
        weight = model.model.layers[0].mlp.down_proj.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(math.nan)
    try:
        with pytest.raises(ValueError, match=r"^nll: nan of a reference with ffn"):
            measured(profiles, Action(profile="ffn"))
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert profiles.active == "none"
