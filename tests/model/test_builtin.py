"""The built-in model: its shape, its size, and that it has learned what its manifest says."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from tasks.data import docs
from tasks.data.documents import count_bytes, hash_texts
from tasks.data.tokens import check_vocabulary, cut, encode
from tasks.evaluate.perplexity import bits_per_byte, perplexity

BUILTIN = Path(__file__).parents[2] / "tasks" / "model" / "builtin"
MANIFEST = json.loads((BUILTIN / "manifest.json").read_text(encoding="utf-8"))
STATED = MANIFEST["evaluation"]
MOST_BITS_PER_BYTE = 1.6
MOST_BYTES = 12_000_000


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(BUILTIN, local_files_only=True)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BUILTIN, local_files_only=True)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    texts = docs.gather("evaluation")
    if hash_texts(texts) != STATED["sha256"]:
        pytest.skip("other versions are installed than the stated number belongs to")
    return texts


def test_its_shape_suits_every_pattern_and_cut(model):
    config = model.config
    assert isinstance(model, LlamaForCausalLM)
    assert 2_000_000 <= model.num_parameters() == MANIFEST["parameters"] <= 4_000_000
    assert (config.num_key_value_heads, config.num_attention_heads) == (4, 8)
    assert config.hidden_size % 64 == config.intermediate_size % 64 == 0
    assert 6 <= config.num_hidden_layers <= 8
    assert 2048 <= config.vocab_size <= 4096
    assert config.tie_word_embeddings
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_it_is_small_enough_for_the_repository():
    assert sum(path.stat().st_size for path in BUILTIN.iterdir()) <= MOST_BYTES


def test_its_tokenizer_gives_every_text_back_and_marks_where_a_document_begins(model, tokenizer):
    text = 'def f(x):\n\n    """Grüße, 数学 & 12345\tαβγ."""\n    return  x\r\n'
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id == tokenizer.eos_token_id == model.config.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.model_max_length == model.config.max_position_embeddings


def test_what_is_stated_is_below_the_limit():
    assert STATED["bits_per_byte"] <= MOST_BITS_PER_BYTE
    assert STATED["bits_per_byte"] == pytest.approx(
        bits_per_byte(STATED["nll"], STATED["tokens"], STATED["text_bytes"]), abs=1e-6
    )


def test_it_has_learned(model, tokenizer, texts):
    """The text and its tokens as stated; the loss on every fourth window, which is close to that on all."""
    ids_T = encode(texts, tokenizer)
    check_vocabulary(ids_T, model.config.vocab_size)
    windows_NW = cut(ids_T, STATED["window"])
    assert (count_bytes(texts), len(ids_T), len(windows_NW)) == (
        STATED["text_bytes"],
        STATED["tokens"],
        STATED["windows"],
    )
    some = perplexity(model, windows_NW[::4].flatten(), STATED["window"])
    measured = bits_per_byte(some.nll, len(ids_T), count_bytes(texts))
    assert measured <= MOST_BITS_PER_BYTE
    assert measured == pytest.approx(STATED["bits_per_byte"], rel=0.05)


@pytest.mark.slow
def test_the_stated_number(model, tokenizer, texts):
    ids_T = encode(texts, tokenizer)
    scored = perplexity(model, ids_T, STATED["window"])
    assert scored.windows == STATED["windows"]
    measured = bits_per_byte(scored.nll, len(ids_T), count_bytes(texts))
    assert measured == pytest.approx(STATED["bits_per_byte"], abs=1e-3)
