"""The state of a decision: in the order that policies are trained on, bounded, and different for different prompts."""

import math
from dataclasses import fields

import pytest
import torch

from tasks.data import docs
from tasks.data.docstrings import docstrings
from tasks.model.load import BUILTIN, load_model, load_tokenizer
from tasks.prune.structure.profiles import Profiles
from tasks.train_controller.act.prefill import prefill
from tasks.train_controller.act.prompt_features import describe_prompt
from tasks.train_controller.observation import (
    FEATURES,
    HARDWARE_FEATURES,
    PROMPT_FEATURES,
    Hardware,
    Observation,
    PromptFeatures,
)

IDLE = Hardware(cpu_use=0.1, memory_free=0.9)
SHARES = tuple(each.name for each in fields(PromptFeatures) if each.name not in ("tokens", "ppl"))


def prompt(tokens=50, ppl=10.0, **changes):
    return PromptFeatures(tokens=tokens, ppl=ppl, **{**dict.fromkeys(SHARES, 0.5), **changes})


@pytest.fixture(scope="module")
def seen():
    """What the built-in model makes of the beginnings of documents that it was not trained on."""
    profiles, tokenizer = Profiles(load_model(BUILTIN)), load_tokenizer(BUILTIN)
    texts = ["\n\n".join(docstrings(path)) for path in docs.modules("evaluation")[:40]]
    prompts = [
        text[: 100 + 20 * number] for number, text in enumerate([text for text in texts if len(text) > 600][:24])
    ]
    return [describe_prompt(prefill(profiles, torch.tensor([tokenizer(text)["input_ids"]]))) for text in prompts]


def test_features_are_named_once_the_machine_first():
    assert FEATURES == HARDWARE_FEATURES + PROMPT_FEATURES
    assert len({*FEATURES}) == len(FEATURES) == 13
    assert FEATURES[:2] == ("cpu_use", "memory_free")
    assert FEATURES[6:9] == ("prompt_tokens", "prompt_ppl", "complexity")


def test_a_vector_has_the_values_in_the_order_of_the_features():
    machine = {name: (1 + number) / 100 for number, name in enumerate(HARDWARE_FEATURES)}
    shares = {name: (51 + number) / 100 for number, name in enumerate(SHARES)}
    observation = Observation(hardware=Hardware(**machine), prompt=prompt(tokens=50, ppl=10.0, **shares))
    complexity = 0.6 * 50 / 200 + 0.4 * 10 / 50
    expected = [*machine.values(), 50 / 200, 10 / 50, complexity, *shares.values()]
    assert tuple(observation.as_dict()) == FEATURES
    assert observation.as_vector().dtype == torch.float32
    assert observation.as_vector().tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("tokens", "ppl", "complexity"),
    [(1, 1.0, 0.6 / 200 + 0.4 / 50), (200, 50.0, 1.0), (100, 500.0, 0.7), (9999, 1.0, 0.608), (400, math.inf, 1.0)],
)
def test_complexity_is_that_of_the_paper(tokens, ppl, complexity):
    assert prompt(tokens, ppl).complexity == pytest.approx(complexity)


@pytest.mark.parametrize("value", [-3.0, -1e-7, 0.0, 0.4, 1.0 + 1e-7, 7.0, math.inf])
def test_whatever_is_seen_lies_between_0_and_1(value):
    machine = Hardware(**dict.fromkeys(HARDWARE_FEATURES, value))
    observed = Observation(hardware=machine, prompt=prompt(10_000, abs(value), **dict.fromkeys(SHARES, value)))
    vector_F = observed.as_vector()
    assert 0 <= vector_F.min() <= vector_F.max() <= 1
    assert observed.as_dict()["cpu_use"] == min(1.0, max(0.0, value))


def test_every_feature_of_a_prompt_varies_between_prompts(seen):
    rows = [Observation(hardware=IDLE, prompt=each).as_dict() for each in seen]
    for name in PROMPT_FEATURES:
        values = torch.tensor([row[name] for row in rows])
        assert values.std() > 0.002, name
        assert values.unique().numel() > len(rows) / 2, name
    for name in HARDWARE_FEATURES:
        assert {row[name] for row in rows} == {getattr(IDLE, name)}


def test_harder_prompts_look_harder(seen):
    """A text of random tokens costs the built-in model more than any document."""
    profiles = Profiles(load_model(BUILTIN))
    noise = describe_prompt(prefill(profiles, torch.randint(3072, (1, 60), generator=torch.manual_seed(0))))
    assert noise.ppl > max(each.ppl for each in seen)
    assert noise.worst == 1.0 > min(each.worst for each in seen)
