"""Distillation: its loss is the formula, and it draws the pruned model to the dense one."""

import numpy as np
import pytest
import torch

from tasks.recover.distil import Distil, divergence
from tasks.recover.lora import LoRA, adapters
from tasks.recover.recover import recover
from tasks.recover.recovery import Recovery
from tests.cases import llama
from tests.recover.text import STEP, VOCABULARY, pruned_llama, some_windows, weights_of, zeros_of

RECOVERY = Recovery(tokens=12 * STEP, batch=8, rate=3e-3)


def dense_llama(**changes):
    return llama(**{"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, **changes})


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def test_the_loss_is_the_formula_in_float64():
    model, dense, windows = pruned_llama(), dense_llama(), some_windows()
    batch_B = windows.order_S[:8]
    ids, labels = windows.ids_NW[batch_B], windows.labels_NW[batch_B]
    with torch.no_grad():
        ours, theirs = (each(ids).logits.double().numpy() for each in (model, dense))
    temperature, soft, hard, losses = 3.0, 0.7, 0.2, []
    for row, at in zip(*np.nonzero(labels.numpy()[:, 1:] >= 0), strict=True):
        p, q = softmax(theirs[row, at] / temperature), softmax(ours[row, at] / temperature)
        kl = float((p * (np.log(p) - np.log(q))).sum())
        nll = -float(np.log(softmax(ours[row, at])[labels[row, at + 1]]))
        losses.append(soft * temperature**2 * kl + hard * nll)
    objective = Distil(dense=dense, temperature=temperature, soft=soft, hard=hard)
    first = recover(model, windows, Recovery(tokens=STEP, batch=8), objective=objective).curve[0]
    assert first.loss == pytest.approx(np.mean(losses), rel=1e-6)


def test_a_model_has_no_divergence_from_itself_and_some_from_others():
    logits_PV = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert divergence(logits_PV, logits_PV + 3, 2.0).item() == pytest.approx(0, abs=1e-6)
    assert divergence(logits_PV, logits_PV.flip(1), 2.0).item() > 0.1


def test_the_gradient_keeps_its_size_at_high_temperatures():
    """T² KL at temperature T tends to half the variance of the logits' difference over the vocabulary."""
    generator = torch.Generator().manual_seed(0)
    dense, ours = (torch.randn(1, 50, generator=generator, dtype=torch.float64) for _ in range(2))
    limit = (dense - ours).var(correction=0).item() / 2
    assert 1e3**2 * divergence(dense, ours, 1e3).item() == pytest.approx(limit, rel=1e-2)


@pytest.mark.parametrize("way", ["full", "lora"])
def test_it_draws_the_pruned_model_to_the_dense_one(way):
    model, dense = pruned_llama(), dense_llama(attention_dropout=0.5)
    dense.train()
    untouched, zeros = weights_of(dense), zeros_of(model)
    objective = Distil(dense=dense, hard=0.0)
    if way == "full":
        done = recover(model, some_windows(), RECOVERY, objective=objective)
    else:
        with adapters(model, LoRA(rank=4)):
            done = recover(model, some_windows(), RECOVERY, objective=objective)
    assert done.curve[-1].loss < 0.8 * done.curve[0].loss
    assert torch.equal(weights_of(dense), untouched)
    assert dense.training
    assert all(parameter.grad is None for parameter in dense.parameters())
    after = zeros_of(model)
    assert all(torch.equal(zeros[name], after[name]) for name in zeros)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"temperature": 0.0}, "temperature: 0.0 given"),
        ({"soft": -1.0}, "soft: -1.0 given"),
        ({"soft": 0.0}, "soft: 0 given, which asks nothing of the dense model"),
        ({"hard": -1.0}, "hard: -1.0 given"),
    ],
)
def test_settings_that_make_no_sense_get_one_line(changes, complaint):
    with pytest.raises(ValueError, match=f"^{complaint}"):
        Distil(dense=dense_llama(), **changes)


def test_another_vocabulary_gets_one_line():
    objective = Distil(dense=dense_llama(vocab_size=19))
    with pytest.raises(ValueError, match=r"^dense: a vocabulary of 19 given, the pruned model has one of 17$"):
        recover(pruned_llama(), some_windows(), RECOVERY, objective=objective)
