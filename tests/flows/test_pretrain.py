"""How the built-in model was made, in small: a tokenizer and a model are left behind, and the same command goes on."""

import json
import logging

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from flows import pretrain
from tasks.model.load import BUILTIN

WORDS = ["the", "model", "keeps", "two", "weights", "of", "every", "four", "and", "drops", "the", "other", "two"]


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A small text instead of what is installed, short windows, no compiler."""
    texts = [" ".join(WORDS[start % 13 :] + WORDS) + f" {start}\n    and so on" for start in range(400)]
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setattr(pretrain, "VOCABULARY", 300)
    monkeypatch.setattr(pretrain, "WINDOW", 32)
    monkeypatch.setattr(pretrain.docs, "gather", lambda part, workers=1: texts[:300])
    monkeypatch.setattr(pretrain.docs, "read", lambda part: texts[300:])
    monkeypatch.setattr(pretrain, "get_run_logger", lambda: logging.getLogger("pretrain"))
    real = pretrain.train
    monkeypatch.setattr(pretrain, "train", lambda *args, compiled, **options: real(*args, **options))
    return tmp_path


def test_it_leaves_a_model_that_loads_and_says_how_it_was_made(small):
    folder = small / "builtin"
    manifest = pretrain.pretrain.fn(minutes=0.02, folder=str(folder))
    assert json.loads((folder / "manifest.json").read_text(encoding="utf-8")) == manifest
    assert manifest["command"] == "python -m flows.pretrain --minutes 0.02"
    assert manifest["text"]["documents"] == 300
    assert manifest["training"]["fraction"] == 1.0
    assert manifest["evaluation"]["bits_per_byte"] < 4
    model, tokenizer = (kind.from_pretrained(folder) for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert len(tokenizer) == model.config.vocab_size == 300
    text = "the model keeps\n    two"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == f"<|doc|>{text}"

    weights = model.state_dict()
    again = pretrain.pretrain.fn(minutes=0.02, folder=str(folder))
    assert again["training"] == manifest["training"]
    unchanged = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(weights[name], unchanged[name]) for name in weights)


def test_without_parameters_it_stays_in_the_artifacts_folder(small):
    shipped = BUILTIN / "model.safetensors"
    before = shipped.stat().st_mtime_ns
    pretrain.pretrain.fn(minutes=0.005)
    made = small / "artifacts" / "pretrain" / "model"
    assert {"config.json", "manifest.json", "model.safetensors", "tokenizer.json"} <= {f.name for f in made.iterdir()}
    assert shipped.stat().st_mtime_ns == before


def test_tokens_of_other_packages_are_refused_in_one_line(small, monkeypatch):
    pretrain.prepare(small)
    monkeypatch.setattr(pretrain.docs, "installed", lambda part: "others")
    with pytest.raises(ValueError, match=rf"^pretrain: {small}/tokens.safetensors is of other .*delete it") as error:
        pretrain.prepare(small)
    assert "\n" not in str(error.value)


def test_the_architecture_suits_every_cut():
    model = pretrain.llama(3072)
    config = model.config
    assert 2_000_000 <= model.num_parameters() <= 2_900_000
    assert config.num_attention_heads == 2 * config.num_key_value_heads == 8
    assert config.hidden_size % 64 == config.intermediate_size % 64 == 0
