import threading

import pytest
import torch

from tasks.calibrate.hold import forwards, hold


def test_forwards_take_turns_and_never_run_together():
    told = []

    def forward(name):
        for part in range(3):
            told.append((part, name))
            hold()
        told.append((3, name))

    with forwards([lambda: forward("a"), lambda: forward("b")]) as (a, b):
        for _ in range(4):
            a.resume()
            b.resume()
    assert told == [(part, name) for part in range(4) for name in "ab"]


def test_what_it_raises_reaches_the_one_who_waits():
    def broken():
        hold()
        raise ValueError("weight: NaN")

    with forwards([broken]) as (held,):
        held.resume()
        with pytest.raises(ValueError, match="weight: NaN"):
            held.resume()
        with pytest.raises(RuntimeError, match="ended"):
            held.resume()


@pytest.mark.parametrize("turns", [0, 1])
def test_what_is_still_held_is_abandoned_and_its_thread_used_again(turns):
    left = []

    def forward():
        try:
            hold()
            left.append("went on")
        finally:
            left.append("unwound")

    with forwards([forward]) as (first,):
        for _ in range(turns):
            first.resume()
    assert left == ["unwound"] * turns
    threads = set(threading.enumerate())
    with forwards([forward]) as (second,):
        second.resume()
        second.resume()
    assert second is first
    assert set(threading.enumerate()) <= threads
    assert left == ["unwound"] * turns + ["went on", "unwound"]


def test_no_gradients_inside():
    modes = []
    with torch.enable_grad(), forwards([lambda: modes.append(torch.is_grad_enabled())]) as (held,):
        held.resume()
    assert modes == [False]
