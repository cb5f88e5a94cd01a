"""A replayed sweep against a plain one. Only the recording itself needs CUDA; a recomputation stands in for it here."""

import pytest
import torch

from tasks.calibrate.observers import InputGram
from tasks.prune.weight import replay, sweep
from tasks.prune.weight.pattern import parse_pattern
from tasks.prune.weight.replay import Replay
from tests.prune.weight.test_pruners import case


@pytest.fixture
def recordings(monkeypatch):
    """As with a graph, memory stays the same: `again` reads the inputs and overwrites the outputs of the recording."""
    made = []

    def record(compute, device):
        outputs = tuple(each.clone() for each in compute())
        made.append(outputs)

        def again():
            for own, new in zip(outputs, compute(), strict=True):
                own.copy_(new)

        return again, outputs

    monkeypatch.setattr(replay, "record", record)
    monkeypatch.setattr(sweep, "DEVICES", ("cpu",))
    sweep._recorded.cache_clear()
    yield made
    sweep._recorded.cache_clear()


def seen(x_TI):
    stat = InputGram(x_TI.shape[1], "cpu")
    stat.update(x_TI)
    return stat


@pytest.mark.parametrize("block", [8, 24, 64, 100])  # 24: the last block is narrower; 100: the only one is
@pytest.mark.parametrize("choice", ["50%", "50%@matrix", "2:4", "4:8", "keep"])
def test_a_replayed_sweep_is_a_sweep(choice, block, request):
    weight_OI, x_TI = case()
    chosen = weight_OI > 0 if choice == "keep" else parse_pattern(choice)
    plain = sweep.sweep(weight_OI, seen(x_TI), chosen, 0.01, block)
    recordings = request.getfixturevalue("recordings")
    for _ in range(2):
        replayed = sweep.sweep(weight_OI, seen(x_TI), chosen, 0.01, block)
        for own, other in zip(plain, replayed, strict=True):  # of a copy a BLAS may differ in the last bit (AMD's does)
            torch.testing.assert_close(own, other, rtol=0.0, atol=0.0 if own.dtype == torch.bool else 4e-6)
        assert torch.equal(plain[0] == 0, replayed[0] == 0)
    assert len(recordings) == (block <= weight_OI.shape[1])


def test_each_shape_dtype_and_pattern_is_recorded_once(recordings):
    weight_OI, x_TI = case()
    for weight, text, made in [
        (weight_OI, "2:4", 1),
        (weight_OI.roll(1), "2:4", 1),
        (weight_OI[:, :32], "2:4", 1),  # the number of inputs does not matter
        (weight_OI[:8], "2:4", 2),
        (weight_OI, "50%", 3),
        (weight_OI, "50%@matrix", 3),  # within a block the same
        (weight_OI.double(), "2:4", 4),
    ]:
        sweep.sweep(weight, seen(x_TI[:, : weight.shape[1]]), parse_pattern(text), 0.01, 16)
        assert len(recordings) == made


def test_a_replay_reads_its_inputs_anew_and_leaves_them(recordings):
    double = Replay(lambda x: (x.mul_(2),))
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([5.0, 7.0])
    (first,) = double(one)
    assert first.tolist() == [2, 4]
    (second,) = double(two)
    assert second.tolist() == [10, 14]
    assert second is first  # its memory is used again
    assert (one.tolist(), two.tolist()) == ([1, 2], [5, 7])
