"""Token by token: what `generate` writes, drawn as the seed says, computed only when asked for."""

import math
from contextlib import nullcontext

import pytest
import torch

from tasks.prune.structure.profiles import NONE, Profiles
from tasks.train_controller.act import decode as decoding
from tasks.train_controller.act.actions import Action
from tasks.train_controller.act.decode import Sampling, Timed, decode
from tasks.train_controller.act.fitting import in_force
from tasks.train_controller.act.prefill import prefill
from tests.cases import FAMILIES, batches, llama
from tests.prune.structure.profiled import built

PROMPT = batches((1, 12))[0]
NEW = 20


def written(profiles, new_tokens=NEW, action=None, **how):
    read = prefill(profiles, PROMPT)
    with in_force(profiles, read, action or Action()) as fitted:
        return list(decode(fitted.model, fitted.cache, read.logits_LV[-1], new_tokens=new_tokens, **how))


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_decoding_with_the_whole_model_is_that_of_generate(family):
    model = FAMILIES[family]()
    model.generation_config.eos_token_id = None
    expected_1T = model.generate(PROMPT, max_new_tokens=NEW, do_sample=False)
    assert written(Profiles(model)) == expected_1T[0, PROMPT.shape[1] :].tolist()


def test_a_profile_writes_what_the_cut_model_writes_behind_the_uncut_models_cache():
    """A cut of the FFN leaves the cache's shape, so that the cut model can go on from a copy by itself."""
    profiles = built(llama())
    cache, expected = None, []
    with torch.no_grad():
        first = profiles.model(PROMPT, use_cache=True)
        cache, logits_V = first.past_key_values, first.logits[0, -1]
        with profiles.using("ffn") as model:
            for _ in range(NEW):
                expected.append(int(logits_V.argmax()))
                logits_V = model(torch.tensor([expected[-1:]]), past_key_values=cache, use_cache=True).logits[0, -1]
    assert written(profiles, action=Action(profile="ffn")) == expected
    assert expected != written(profiles)


def test_a_seed_draws_the_same_tokens_and_another_one_others():
    profiles = Profiles(llama())
    drawn = [written(profiles, sampling=Sampling(temperature=1.5, seed=seed)) for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert written(profiles, sampling=Sampling(temperature=1e-9)) == written(profiles)
    assert written(profiles, sampling=Sampling(temperature=1.5, top_p=1e-9)) == written(profiles)


@pytest.mark.parametrize(
    ("temperature", "top_p", "shares"),
    [
        (1.0, 1.0, [0.5, 0.3, 0.15, 0.05]),
        (1.0, 0.7, [0.625, 0.375, 0, 0]),
        (1.0, 0.5, [1, 0, 0, 0]),
        (0.5, 1.0, [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
    ],
)
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature, top_p, shares):
    draws = 4000
    order = [2, 0, 3, 1]  # ids in falling order of their share
    logits_V = torch.tensor([0.3, 0.05, 0.5, 0.15]).log()
    choose = Sampling(temperature=temperature, top_p=top_p, seed=1).chooser()
    drawn = [choose(logits_V) for _ in range(draws)]
    for token, share in zip(order, shares, strict=True):
        assert abs(drawn.count(token) - draws * share) <= 5 * math.sqrt(draws * share * (1 - share))


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"temperature": math.inf}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_values_out_of_bounds_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"^{name}: .* given, valid is "):
        Sampling(**wrong)


def test_nothing_is_computed_before_it_is_asked_for_and_the_callers_mode_stays():
    profiles = Profiles(llama())
    read = prefill(profiles, PROMPT)
    with in_force(profiles, read, Action()) as fitted:
        forwards = []
        hook = fitted.model.register_forward_hook(lambda *_: forwards.append(1))
        tokens = decode(fitted.model, fitted.cache, read.logits_LV[-1], new_tokens=5)
        for asked in range(5):
            next(tokens)
            assert len(forwards) == asked
            assert not torch.is_inference_mode_enabled()
        assert next(tokens, None) is None
        assert len(forwards) == 4
        hook.remove()
    assert fitted.cache.get_seq_length() == PROMPT.shape[1] + 4
    assert read.cache.get_seq_length() == PROMPT.shape[1]


def test_only_the_making_of_tokens_is_timed(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(decoding.time, "perf_counter", lambda: clock[0])

    def slowly():
        for token in (7, 8):
            clock[0] += 2.0
            yield token

    tokens = Timed(slowly())
    for _ in tokens:
        clock[0] += 100.0  # the reader's own
    assert (tokens.count, tokens.seconds) == (2, 4.0)


@pytest.mark.parametrize("leave", ["end", "exception"])
def test_the_profile_goes_as_it_came(leave):
    profiles = built(llama())
    read = prefill(profiles, PROMPT)
    told = pytest.raises(KeyError) if leave == "exception" else nullcontext()
    with told, in_force(profiles, read, Action(profile="all")) as fitted:
        assert profiles.active == "all"
        inside_ms = fitted.switch_ms
        if leave == "exception":
            raise KeyError(leave)
    assert profiles.active == NONE
    assert inside_ms > 0
    assert (fitted.switch_ms > inside_ms) == (leave == "end")
