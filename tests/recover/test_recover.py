"""Recovery: it learns, holds zeros, resumes bit for bit, and does not depend on how a batch is cut."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from tasks.data.mixture import Mixture
from tasks.recover.recover import Recovered, Step, recover
from tasks.recover.recovery import Recovery
from tests.cases import opt
from tests.recover.text import STEP, VOCABULARY, WINDOW, pruned_llama, some_windows, weights_of, zeros_of

RECOVERY = Recovery(tokens=12 * STEP, batch=8, rate=3e-3)


def test_it_learns_and_every_zero_stays():
    model = pruned_llama()
    before, zeros = weights_of(model), zeros_of(model)
    done = recover(model, some_windows(40), replace(RECOVERY, tokens=40 * STEP, rate=1e-2, weight_decay=0.1))
    assert done.curve[-1].loss < done.curve[0].loss / 2
    after = zeros_of(model)
    assert all(torch.equal(zeros[name], after[name]) for name in zeros)
    assert done.zeros == sum(int(each.sum()) for each in zeros.values()) > 0
    assert (weights_of(model) != before)[before != 0].float().mean() > 0.98  # all but the embedding of padding
    assert not model.training


def test_the_first_loss_is_the_mean_over_the_tokens_that_are_learned():
    model, windows = pruned_llama(), some_windows()
    batch_B = windows.order_S[:8]
    with torch.no_grad():
        logits = model(windows.ids_NW[batch_B]).logits.double()
    labels = windows.labels_NW[batch_B]
    losses = [
        -logits[row, at - 1].log_softmax(0)[labels[row, at]].item()
        for row in range(8)
        for at in range(1, WINDOW)
        if labels[row, at] >= 0
    ]
    first = recover(model, windows, replace(RECOVERY, tokens=STEP)).curve[0]
    assert first.learned == len(losses) < 8 * (WINDOW - 1)
    assert first.loss == pytest.approx(sum(losses) / len(losses), abs=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_resumed_training_is_the_undisturbed_one_bit_for_bit(tmp_path, dropout):
    class KilledError(Exception):
        pass

    def kill(step: Step) -> None:
        if step.step == 7:
            raise KilledError

    def make():
        return opt(vocab_size=VOCABULARY, dropout=dropout)

    windows, path = some_windows(), tmp_path / "state.safetensors"
    undisturbed, resumed = make(), make()
    whole = recover(undisturbed, windows, RECOVERY)
    with pytest.raises(KilledError):
        recover(make(), windows, RECOVERY, checkpoint=path, checkpoint_every=3, report=kill)
    seen: list[int] = []
    parts = recover(resumed, windows, RECOVERY, checkpoint=path, report=lambda step: seen.append(step.step))
    assert seen == list(range(6, 12))  # the mark before the seventh step was the sixth
    assert parts == whole
    assert torch.equal(weights_of(undisturbed), weights_of(resumed))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_finished_training_is_not_trained_further(tmp_path):
    path, windows = tmp_path / "state.safetensors", some_windows()
    first, second = pruned_llama(), pruned_llama()
    done = recover(first, windows, RECOVERY, checkpoint=path)
    steps: list[Step] = []
    assert recover(second, windows, RECOVERY, checkpoint=path, report=steps.append) == done
    assert steps == []
    assert torch.equal(weights_of(first), weights_of(second))


@pytest.mark.parametrize("other", ["windows", "recovery", "zeros"])
def test_the_state_of_another_training_is_refused(tmp_path, other):
    path = tmp_path / "state.safetensors"
    recover(pruned_llama(), some_windows(), RECOVERY, checkpoint=path)
    model = pruned_llama()
    if other == "zeros":
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight.copy_(model.model.layers[1].mlp.up_proj.weight.roll(1, dims=1))
    windows = some_windows(seed=1) if other == "windows" else some_windows()
    recovery = replace(RECOVERY, clip=0.5) if other == "recovery" else RECOVERY
    with pytest.raises(ValueError, match=r"^checkpoint: .* is of another text, recipe or model; delete it"):
        recover(model, windows, recovery, checkpoint=path)


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_an_accumulated_batch_is_the_whole_batch(at_once):
    """Windows hold unequal numbers of learned tokens, so a mean of means would be another loss."""
    whole, parts = pruned_llama(), pruned_llama()
    done = recover(whole, some_windows(), RECOVERY)
    cut = recover(parts, some_windows(), replace(RECOVERY, at_once=at_once))
    assert losses(cut) == pytest.approx(losses(done), abs=1e-6)
    assert torch.allclose(weights_of(whole), weights_of(parts), atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_recomputing_runs_every_block_twice_and_changes_nothing(dropout):
    kept, again = (opt(vocab_size=VOCABULARY, dropout=dropout) for _ in range(2))
    done = recover(kept, some_windows(), RECOVERY)
    ran: list[bool] = []
    handle = again.model.decoder.layers[1].fc1.register_forward_hook(lambda *_: ran.append(torch.is_grad_enabled()))
    recomputed = recover(again, some_windows(), replace(RECOVERY, recompute=True))
    handle.remove()
    assert losses(recomputed) == pytest.approx(losses(done), abs=1e-6)
    assert len(ran) == 2 * len(done.curve)
    assert "forward" not in vars(again.model.decoder.layers[1])


def test_a_forward_that_a_block_had_of_its_own_is_put_back():
    model = pruned_llama()
    first = model.model.layers[0]
    own = first.forward = partial(first.forward)
    recover(model, some_windows(), replace(RECOVERY, tokens=STEP, recompute=True))
    assert first.forward is own


def test_the_random_numbers_of_others_are_left_alone():
    model = pruned_llama()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    recover(model, some_windows(), replace(RECOVERY, tokens=STEP))
    assert torch.equal(torch.rand(4), expected)


def test_the_first_step_is_adamw():
    """After one step AdamW moves every weight by its rate times g / (|g| + eps), whatever the size of g."""
    model = pruned_llama()
    before = weights_of(model)
    rate = recover(model, some_windows(), replace(RECOVERY, tokens=STEP, warmup=0, decay=0)).curve[0].rate
    moved = (weights_of(model) - before).abs()
    assert rate == 3e-3
    assert moved.max() == pytest.approx(rate, rel=1e-4)


def test_the_rate_rises_stays_and_falls():
    recovery = Recovery(tokens=1, rate=2.0, warmup=0.2, decay=0.5)
    rates = [recovery.rate_at(step, 10) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.5, 2, 2, 2, 1.8, 1.4, 1.0, 0.6, 0.2])


def test_the_ledger_says_what_was_trained_of_each_source():
    windows = some_windows(12)
    done = recover(pruned_llama(), windows, replace(RECOVERY, tokens=5 * STEP + 7))
    first, second = done.sources
    assert (first.source, first.windows, first.distinct, first.read) == ("first", 30, 30, 30 * WINDOW)
    assert (second.source, second.windows, second.read) == ("second", 10, 10 * WINDOW)
    assert first.learned == 30 * (WINDOW - 1)
    assert first.learned + second.learned == sum(step.learned for step in done.curve)
    assert second.learned < 10 * (WINDOW - 1)


def test_a_gradient_longer_than_the_clip_is_cut(monkeypatch):
    lengths: list[float] = []
    real = torch.optim.AdamW.step

    def watched(self, *args):
        gradients = [each.grad for group in self.param_groups for each in group["params"]]
        lengths.append(torch.cat([each.flatten() for each in gradients]).norm().item())
        return real(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    done = recover(pruned_llama(), some_windows(), replace(RECOVERY, clip=0.01))
    assert min(step.gradient_norm for step in done.curve) > 0.01
    assert lengths == pytest.approx([0.01] * 12, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"rate": -1e-5}, "rate: -1e-05 given, valid is more than 0"),
        ({"tokens": 0}, "tokens: 0 given"),
        ({"warmup": 1.5}, "warmup: 1.5 given, valid is a fraction"),
        ({"warmup": 0.6, "decay": 0.5}, "warmup: 0.6 with a decay of 0.5 is longer than the training"),
        ({"clip": 0.0}, "clip: 0.0 given"),
        ({"batch": 0}, "batch: 0 given"),
        ({"at_once": 0}, "at_once: 0 given"),
        ({"betas": (0.9, 1.0)}, r"betas: \(0.9, 1.0\) given"),
        ({"weight_decay": -1}, "weight_decay: -1 given"),
    ],
)
def test_settings_that_make_no_sense_get_one_line(changes, complaint):
    with pytest.raises(ValueError, match=f"^{complaint}") as error:
        replace(RECOVERY, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"tokens": STEP - 1}, "tokens: 95 given, fewer than one step of 8 windows of 12"),
        ({"tokens": 13 * STEP}, "windows: 96 in the order, the training takes 104"),
        ({"at_once": 3}, "batch: 8 given, valid is a multiple of 1 processes x 3 windows"),
        ({"rate": 1e30}, r"rate: 1e\+30 given, step 1 has a loss of"),
    ],
)
def test_what_cannot_be_trained_gets_one_line(changes, complaint):
    with pytest.raises(ValueError, match=f"^{complaint}") as error:
        recover(pruned_llama(), some_windows(), replace(RECOVERY, **changes))
    assert "\n" not in str(error.value)


def test_gradients_that_others_left_play_no_part_and_none_are_left():
    clean, used = pruned_llama(), pruned_llama()
    used(torch.tensor([[1, 2, 3]])).logits.sum().backward()
    assert recover(used, some_windows(), RECOVERY) == recover(clean, some_windows(), RECOVERY)
    assert all(parameter.grad is None for parameter in used.parameters())


def test_a_model_that_cannot_be_trained_gets_one_line():
    with pytest.raises(ValueError, match=r"^model: .* is torch.bfloat16, valid is float32"):
        recover(pruned_llama().bfloat16(), some_windows(), RECOVERY)
    with pytest.raises(ValueError, match=r"^model: none of its parameters has a gradient"):
        recover(pruned_llama().requires_grad_(False), some_windows(), RECOVERY)
    with pytest.raises(ValueError, match=r"^checkpoint_every: 0 given, valid is 1 step or more$"):
        recover(pruned_llama(), some_windows(), RECOVERY, checkpoint_every=0)


def test_windows_without_anything_to_learn_are_refused():
    windows = some_windows()
    silent = Mixture(**{**vars(windows), "labels_NW": torch.full_like(windows.labels_NW, -100)})
    with pytest.raises(ValueError, match=r"^windows: 192 have no token that is learned"):
        recover(pruned_llama(), silent, RECOVERY)


def losses(done: Recovered) -> list[float]:
    return [step.loss for step in done.curve]
