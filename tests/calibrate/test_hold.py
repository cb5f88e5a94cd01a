import threading

import pytest
import torch

from tasks.calibrate.hold import Held, hold


def test_forwards_take_turns_and_never_run_together():
    told = []

    def forward(name):
        for part in range(3):
            told.append((part, name))
            hold()
        told.append((3, name))

    with Held(lambda: forward("a")) as a, Held(lambda: forward("b")) as b:
        for _ in range(4):
            a.resume()
            b.resume()
    assert told == [(part, name) for part in range(4) for name in "ab"]


def test_what_it_raises_reaches_the_one_who_waits():
    def broken():
        hold()
        raise ValueError("weight: NaN")

    with Held(broken) as held:
        held.resume()
        with pytest.raises(ValueError, match="weight: NaN"):
            held.resume()
        with pytest.raises(RuntimeError, match="ended"):
            held.resume()


@pytest.mark.parametrize("turns", [0, 1])
def test_what_is_still_held_is_abandoned_and_leaves_no_thread(turns):
    left = []

    def forward():
        try:
            hold()
            left.append("went on")
        finally:
            left.append("unwound")

    before = threading.active_count()
    with Held(forward) as held:
        for _ in range(turns):
            held.resume()
    assert left == ["unwound"] * turns
    assert threading.active_count() == before


def test_no_gradients_inside():
    modes = []
    with torch.enable_grad(), Held(lambda: modes.append(torch.is_grad_enabled())) as held:
        held.resume()
    assert modes == [False]
