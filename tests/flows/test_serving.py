"""`espalier serve`: it says where it answers, and a service manager's stop is graceful."""

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from flows import serving
from flows.answer_words import say_serve
from flows.serving import name_of, run_serve
from flows.words import Words
from tasks.train_controller.serve import listen
from tests.train_controller.served import COMPLETIONS, completion, events, until
from tests.train_controller.stand_in import StandIn, text_of


@pytest.fixture
def signals() -> Iterator[None]:
    """What the process does at SIGTERM is afterwards what it was before."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_the_running_answer_end_and_frees_the_port(
    stop: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    controller = StandIn()
    monkeypatch.setattr(serving, "controller_of", lambda arguments: controller)
    with listen(0) as free:
        port = free.getsockname()[1]

    def use_and_stop() -> str:
        until(lambda: answers(port))
        controller.hold.clear()
        body = completion("one two", 6, model="builtin", stream=True)
        with httpx.stream("POST", f"http://127.0.0.1:{port}{COMPLETIONS}", json=body, trust_env=False) as response:
            until(lambda: bool(controller.begun))
            os.kill(os.getpid(), stop)
            until(lambda: not answers(port))
            controller.hold.set()
            response.read()
        return "".join(each["choices"][0]["text"] for each in events(response))

    parser = Words()
    say_serve(parser)
    with ThreadPoolExecutor(1) as client:
        text = client.submit(use_and_stop)
        assert run_serve(parser.parse_args(["--port", str(port)])) == 0
    assert text.result() == text_of("one two", 6)
    said, stopped = capsys.readouterr().err.splitlines()
    assert said.startswith(f"espalier: builtin answers at http://127.0.0.1:{port}/v1, ")
    assert stopped == "espalier: stopped"
    listen(port).close()


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_port_that_is_taken_is_one_line_before_any_model_is_loaded():
    parser = Words()
    say_serve(parser)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"port: {port} cannot be had \(.*\), valid is a free one$"):
            run_serve(parser.parse_args(["--port", str(port), "--model", "no-such-model"]))
    with pytest.raises(ValueError, match="port: '70000' given, valid is a whole number, 0 to 65535"):
        parser.parse_args(["--port", "70000"])
    with pytest.raises(ValueError, match="unrecognized arguments: --host"):  # only this machine
        parser.parse_args(["--host", "0.0.0.0"])


def test_clients_name_a_model_by_its_folder_or_the_end_of_its_name_on_the_hub(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert name_of("builtin") == "builtin"
    assert name_of("org/tree-1b") == "tree-1b"
    assert name_of(".") == tmp_path.name
