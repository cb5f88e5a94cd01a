import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.evaluate import perplexity as module
from tasks.evaluate.perplexity import bits_per_byte, perplexity
from tests.cases import FAMILIES, gemma2, llama


def capped():
    """Its head alone does not give its logits, and a cap this low makes the difference visible."""
    return gemma2(final_logit_softcapping=0.01)


def ids(count=1000):
    return torch.randint(0, 97, (count,), generator=torch.Generator().manual_seed(1))


def naive_nll(model, ids, window):
    """Token by token, in float64, one window at a time."""
    losses = []
    for window_T in ids[: len(ids) // window * window].split(window):
        with torch.no_grad():
            log_prob_TV = model(window_T[None]).logits[0].double().log_softmax(-1)
        losses += [-log_prob_TV[t, token].item() for t, token in enumerate(window_T[1:])]
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize("build", [*FAMILIES.values(), capped, lambda: llama(tie_word_embeddings=True)])
@pytest.mark.parametrize("logits_at_once", [2**25, 97 * 50])
def test_equals_a_naive_loop_in_float64(build, logits_at_once, monkeypatch):
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", logits_at_once)
    model = build().double()
    result = perplexity(model, ids(), 32)
    assert (result.windows, result.tokens) == (31, 31 * 31)
    assert result.nll == pytest.approx(naive_nll(model, ids(), 32), rel=1e-6)
    assert result.ppl == pytest.approx(math.exp(result.nll))


def test_equals_the_models_own_loss():
    model, ids_BT = llama(), ids(320).reshape(10, 32)
    with torch.no_grad():
        own = model(ids_BT, labels=ids_BT).loss.item()
    assert perplexity(model, ids_BT.flatten(), 32, batch_size=10).nll == pytest.approx(own, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 31, 1000])
def test_does_not_depend_on_the_batch(batch_size):
    model = llama()
    assert perplexity(model, ids(), 32, batch_size).nll == pytest.approx(perplexity(model, ids(), 32).nll, rel=1e-6)


def test_the_tail_is_dropped():
    model = llama()
    assert perplexity(model, ids(95), 32) == perplexity(model, ids(64), 32)


@pytest.mark.parametrize(("build", "at_once", "most"), [(llama, 10, 10), (capped, 70, 64), (capped, 10, 32)])
def test_all_logits_never_exist_at_once(build, at_once, most, monkeypatch):
    """Some tokens of a batch, or some of its windows of 32 where the model makes its logits itself, one at least."""
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 97 * at_once)
    model, rows = build(), []
    with_hook = model.lm_head.register_forward_hook(lambda _, inputs, logits: rows.append(logits.numel() // 97))
    perplexity(model, ids(), 32)
    with_hook.remove()
    assert max(rows) == most


def test_dropout_is_off_and_the_mode_restored():
    model = llama(attention_dropout=0.9).train()
    model.model.norm.eval()
    assert perplexity(model, ids(), 32) == perplexity(llama(), ids(), 32)
    assert model.training
    assert not model.model.norm.training


def test_progress_is_told():
    seen = []
    perplexity(llama(), ids(), 32, batch_size=20, on_batch=lambda done, windows: seen.append((done, windows)))
    assert seen == [(20, 31), (31, 31)]


def broken():
    model = llama()
    model.lm_head.weight.data[5, 5] = math.nan
    return model


@pytest.mark.parametrize(
    ("model", "text", "window", "said"),
    [
        (llama, ids(31), 32, "31 tokens, shorter than one window of 32"),
        (llama, ids(64).reshape(2, 32), 32, "1-D"),
        (llama, ids(64).float(), 32, "token ids"),
        (llama, ids(64), 1, "window: at least 2"),
        (llama, torch.full((64,), 97), 32, "vocabulary is 0 to 96"),
        (broken, ids(64), 32, "nll: nan"),
    ],
)
def test_bad_input_is_told_in_one_line(model, text, window, said):
    with pytest.raises(ValueError, match=said) as error:
        perplexity(model(), text, window)
    assert "\n" not in str(error.value)


def test_bits_per_byte():
    assert bits_per_byte(math.log(2), 10, 40) == pytest.approx(0.25)  # one bit a token, four bytes a token
    with pytest.raises(ValueError, match="bits_per_byte"):
        bits_per_byte(1.0, 10, 0)


def test_a_real_model_has_its_known_perplexity(shared):
    model = AutoModelForCausalLM.from_pretrained(shared / "models/stories3M")
    tokenizer = AutoTokenizer.from_pretrained(shared / "models/stories3M")
    lines = (shared / "text/tinystories_train_sample.jsonl").read_text().splitlines()[400:787]
    text = torch.tensor([i for line in lines for i in tokenizer(json.loads(line)["text"])["input_ids"]])
    assert len(text) == 95_195
    result = perplexity(model, text, 256)
    assert result.windows == 371
    assert result.ppl == pytest.approx(5.903, abs=1e-3)
