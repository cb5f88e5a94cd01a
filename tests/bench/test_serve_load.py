"""The load of the service counts what it has to: answers that are lost, and answers that are another's."""

import psutil

from bench.serve_load import LOOKS, Load, press, prompts_of
from tests.train_controller.served import MODEL, serving
from tests.train_controller.stand_in import StandIn, text_of


def test_every_client_has_prompts_of_its_own():
    prompts = prompts_of(8)
    flat = [prompt for own in prompts for prompt in own]
    assert len(prompts) == 8
    assert all(prompts)
    assert len(set(flat)) == len(flat)


def test_answers_are_counted_whole_and_streamed():
    with serving(StandIn()) as served:
        load = Load(model=MODEL, port=served.port, tokens=5)
        load.ask("one two", stream=False)
        load.ask("one two", stream=True)
        assert (load.requests, load.lost, load.mixed, load.written) == (2, 0, 0, 10)
        assert load.known == {("one two", "ffn20"): text_of("one two", 5)}
        assert load.actions == {"ffn20": 2}
        load.known["one two", "ffn20"] = text_of("another's", 5)
        load.ask("one two", stream=True)
        assert (load.requests, load.mixed) == (3, 1)


def test_the_memory_is_looked_at_before_meanwhile_and_after():
    with serving(StandIn()) as served:
        load = Load(model=MODEL, port=served.port, tokens=2)
        memory_bytes = press(load, [["one two"], ["three"]], 0.1, psutil.Process())
    assert len(memory_bytes) == LOOKS + 2
    assert min(memory_bytes) > 0
    assert load.requests >= 2
    assert load.lost == load.mixed == 0


def test_what_is_refused_broken_off_or_unanswered_is_lost(capsys):
    with serving(StandIn()) as served:
        load = Load(model=MODEL, port=served.port, tokens=5)
        load.ask("break", stream=False)
        load.ask("break", stream=True)
        assert (load.requests, load.lost) == (2, 2)
    load.ask("one two", stream=False)
    assert (load.requests, load.lost, load.written) == (3, 3, 0)
    assert capsys.readouterr().err.count("lost: ") == 3
