"""Features of a prompt, held against the formulas in float64; and that they bound what they say they bound."""

import math

import pytest
import torch
from transformers import DynamicCache

from tasks.train_controller.act import prefill
from tasks.train_controller.act.prefill import LEAST, LOOKED_AT, Prefill
from tasks.train_controller.act.prompt_features import describe_prompt

WORDS, WIDTH = 53, 12


def reading(tokens, seed=0, logits_LV=None, scale=3.0):
    """What a model might have made of a prompt: logits, and the states before and after its first block."""
    draw = torch.Generator().manual_seed(seed)
    ids_1T = torch.randint(WORDS, (1, tokens), generator=draw)
    states_2TD = torch.randn(2, tokens, WIDTH, generator=draw)
    return Prefill(
        ids_1T=ids_1T,
        logits_LV=scale * torch.randn(tokens, WORDS, generator=draw) if logits_LV is None else logits_LV,
        cache=DynamicCache(),
        queries=None,
        first_block_in_TD=states_2TD[0],
        first_block_out_TD=states_2TD[1],
        prefill_ms=0.0,
    )


@pytest.mark.parametrize(("bound", "losses", "states"), [(LOOKED_AT, 99, 99), (0, 8, 8), (700, 13, 58)])
@pytest.mark.parametrize("tokens", [2, 7, LEAST, LEAST + 1, LEAST + 2, 13, 14, 15, 59])
def test_every_feature_is_its_formula(tokens, bound, losses, states, monkeypatch):
    """Of so many of the last tokens: 700 numbers are 13 rows of 53 words, and 58 of 12 numbers of a state."""
    monkeypatch.setattr(prefill, "LOOKED_AT", bound)
    read = reading(tokens, seed=tokens)
    seen = describe_prompt(read)
    p_TV = read.logits_LV.double().exp()
    p_TV /= p_TV.sum(1, keepdim=True)
    loss_T = torch.tensor([-math.log(p_TV[at, read.ids_1T[0, at + 1]]) for at in range(tokens - 1)]).double()
    loss_T = loss_T[-losses:]
    before_TD, after_TD = read.first_block_in_TD[-states:].double(), read.first_block_out_TD[-states:].double()
    cosine_T = (before_TD * after_TD).sum(1) / (before_TD.norm(dim=1) * after_TD.norm(dim=1))
    assert seen.tokens == tokens
    assert seen.ppl == pytest.approx(math.exp(loss_T.mean()), rel=1e-5)
    assert seen.entropy == pytest.approx(float(-(p_TV[-1] * p_TV[-1].log()).sum()) / math.log(WORDS), rel=1e-5)
    assert seen.confidence == pytest.approx(float(p_TV[-1].max()), rel=1e-5)
    assert seen.worst == pytest.approx(min(1.0, float(loss_T.quantile(0.9)) / math.log(WORDS)), rel=1e-5)
    assert seen.first_block == pytest.approx(float((1 - cosine_T).mean()) / 2, rel=1e-5)


def test_a_single_token_has_no_losses():
    seen = describe_prompt(reading(1))
    assert (seen.tokens, seen.ppl, seen.worst) == (1, 1.0, 0.0)
    assert 0 < seen.entropy < 1


def test_without_tokens_there_is_nothing_to_describe():
    with pytest.raises(ValueError, match=r"^prompt: no tokens given, valid is one or more"):
        describe_prompt(reading(0))


def test_a_model_that_knows_nothing_and_one_that_is_sure():
    ignorant = describe_prompt(reading(9, logits_LV=torch.full((9, WORDS), 2.5)))
    assert (ignorant.ppl, ignorant.entropy) == (pytest.approx(WORDS), pytest.approx(1.0))
    assert ignorant.confidence == pytest.approx(1 / WORDS)
    assert ignorant.worst == pytest.approx(1.0)
    sure_TV = torch.full((9, WORDS), -math.inf).scatter(1, reading(9).ids_1T[0].roll(-1)[:, None], 0.0)
    sure = describe_prompt(reading(9, logits_LV=sure_TV))
    assert (sure.ppl, sure.entropy, sure.confidence, sure.worst) == (1.0, 0.0, 1.0, 0.0)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 30.0, 1e4])
def test_shares_stay_shares(scale):
    for seed in range(20):
        seen = describe_prompt(reading(40, seed=seed, scale=scale))
        assert all(0 <= value <= 1 for value in (seen.entropy, seen.confidence, seen.worst, seen.first_block))
        assert seen.ppl >= 1


def test_the_first_block_is_told_by_the_angle_alone():
    read = reading(5)
    for factor, share in ((3.0, 0.0), (-3.0, 1.0)):
        turned = Prefill(**{**vars(read), "first_block_out_TD": factor * read.first_block_in_TD})
        assert describe_prompt(turned).first_block == pytest.approx(share, abs=1e-6)


def test_of_a_long_prompt_no_more_is_looked_at_than_the_bound(monkeypatch):
    monkeypatch.setattr(prefill, "LOOKED_AT", 20 * WORDS)
    read = reading(500)
    seen = describe_prompt(read)
    read.logits_LV[: -(20 + 1)] = math.nan  # the last row foretells what is to be written
    for states_TD in (read.first_block_in_TD, read.first_block_out_TD):
        states_TD[: -(20 * WORDS // WIDTH)] = math.nan
    assert describe_prompt(read) == seen
    assert seen.tokens == 500
