"""A training in spans: what a step does follows from its number, and what AdamW remembers is handed on."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.recover.moments import begin_with, moments_in
from tasks.recover.recover import Step, recover
from tasks.recover.recovery import Recovery, Span
from tests.recover.text import STEP, pruned_llama, some_windows, weights_of

RECOVERY = Recovery(tokens=12 * STEP, batch=8, rate=3e-3)
FIRST, NEXT = Span(first=0, last=5), Span(first=5, last=12)


def handed_on(tmp_path):
    """A model after the first span, and the file with its moments."""
    model, state, moments = pruned_llama(), tmp_path / "first.safetensors", tmp_path / "moments.safetensors"
    done = recover(model, some_windows(), RECOVERY, span=FIRST, checkpoint=state)
    save_file(moments_in(state), moments)
    return model, done, moments


def test_spans_one_after_the_other_are_the_training_bit_for_bit(tmp_path):
    whole = pruned_llama()
    undivided = recover(whole, some_windows(), RECOVERY)
    model, first, moments = handed_on(tmp_path)
    second = recover(model, some_windows(), RECOVERY, span=NEXT, moments=moments)
    assert first.curve + second.curve == undivided.curve
    assert [step.step for step in second.curve] == list(range(5, 12))
    assert second.sources == undivided.sources  # of all that was trained until then
    assert sum(source.windows for source in first.sources) == 5 * 8
    assert torch.equal(weights_of(model), weights_of(whole))


def test_without_its_moments_a_span_is_another_training(tmp_path):
    model, _, moments = handed_on(tmp_path)
    forgetful, _, _ = handed_on(tmp_path)
    recover(model, some_windows(), RECOVERY, span=NEXT, moments=moments)
    recover(forgetful, some_windows(), RECOVERY, span=NEXT)
    assert (weights_of(model) - weights_of(forgetful)).abs().max() > 1e-3


def test_a_span_that_was_killed_goes_on_bit_for_bit(tmp_path):
    class KilledError(Exception):
        pass

    def kill(step: Step) -> None:
        if step.step == 9:
            raise KilledError

    undisturbed, _, moments = handed_on(tmp_path)
    expected = recover(undisturbed, some_windows(), RECOVERY, span=NEXT, moments=moments)
    killed, resumed = (handed_on(tmp_path)[0] for _ in range(2))
    how = {"span": NEXT, "moments": moments, "checkpoint": tmp_path / "state.safetensors"}
    with pytest.raises(KilledError):
        recover(killed, some_windows(), RECOVERY, checkpoint_every=3, report=kill, **how)
    seen: list[int] = []
    assert recover(resumed, some_windows(), RECOVERY, report=lambda step: seen.append(step.step), **how) == expected
    assert seen == [9, 10, 11]  # the mark before the tenth step was the ninth
    assert torch.equal(weights_of(resumed), weights_of(undisturbed))


@pytest.mark.parametrize("other", ["span", "moments"])
def test_the_state_of_another_span_is_refused(tmp_path, other):
    model, _, moments = handed_on(tmp_path)
    state = tmp_path / "state.safetensors"
    recover(model, some_windows(), RECOVERY, span=NEXT, moments=moments, checkpoint=state)
    changed = load_file(moments)
    changed[min(changed)] += 1
    save_file(changed, tmp_path / "changed.safetensors")
    span = replace(NEXT, first=6) if other == "span" else NEXT
    given = tmp_path / "changed.safetensors" if other == "moments" else moments
    with pytest.raises(ValueError, match=r"^checkpoint: .* is of another text, recipe or model; delete it"):
        recover(handed_on(tmp_path)[0], some_windows(), RECOVERY, span=span, moments=given, checkpoint=state)


def test_spans_and_moments_that_make_no_sense_get_one_line(tmp_path):
    for first, last in ((-1, 3), (3, 3), (5, 4)):
        with pytest.raises(ValueError, match=rf"^span: {first} to {last} given, valid is one step or more"):
            Span(first=first, last=last)
    with pytest.raises(ValueError, match=r"^span: 5 to 13 given, the training has 12 steps$"):
        recover(pruned_llama(), some_windows(), RECOVERY, span=Span(first=5, last=13))
    model = pruned_llama()
    optimizer = torch.optim.AdamW(model.parameters())
    for tensors, complaint in (
        ({"model.neck.weight/exp_avg": torch.zeros(1)}, r"those of model.neck.weight given, which this model does not"),
        ({"model.norm.weight/exp_avg": torch.zeros(5)}, r"\(5,\) given for model.norm.weight, valid is \(16,\)$"),
    ):
        save_file(tensors, tmp_path / "wrong.safetensors")
        with pytest.raises(ValueError, match=f"^moments: {complaint}"):
            begin_with(tmp_path / "wrong.safetensors", model, optimizer)
