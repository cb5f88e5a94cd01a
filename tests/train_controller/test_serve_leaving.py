"""Who leaves a service, and how it stops: over real connections."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.train_controller import serve
from tasks.train_controller.serve import listen
from tests.train_controller.served import HEAD, asking, completion, events, serving, until
from tests.train_controller.stand_in import StandIn, text_of


@pytest.mark.parametrize("stream", [False, True])
def test_who_goes_away_while_answered_makes_way(stream: bool):
    with serving(StandIn(pace_s=0.05)) as served:
        with asking(served, "long", 500, stream=stream) as client:
            until(lambda: served.controller.written > 1)
            if stream:
                assert client.recv(1)
        assert served.ask("and on").status_code == 200
        assert served.controller.closed == ["long"]
        assert served.controller.written < 500


@pytest.mark.parametrize("stream", [False, True])
def test_who_goes_away_is_noticed_though_no_text_comes(stream: bool):
    with serving(StandIn(pace_s=0.05, mute=True)) as served:
        with asking(served, "long", 500, stream=stream):
            until(lambda: served.controller.begun == ["long"])
        until(lambda: served.controller.closed == ["long"])
        assert served.controller.written < 500


def test_tokens_without_text_are_no_events():
    with serving(StandIn(mute=True)) as served:
        (last,) = events(served.ask("one two", stream=True))
    assert (last["choices"][0]["text"], last["choices"][0]["finish_reason"]) == ("", "length")


@pytest.mark.parametrize("stream", [False, True])
def test_who_goes_away_while_waiting_is_never_answered(stream: bool):
    with serving(StandIn()) as served, ThreadPoolExecutor(1) as other:
        served.controller.hold.clear()
        first = other.submit(served.ask, "first")
        until(lambda: served.controller.begun == ["first"])
        with asking(served, "second", stream=stream):
            until(lambda: served.service.line.waiting == 1)
        until(lambda: served.service.line.waiting == 0)
        served.controller.hold.set()
        assert first.result().status_code == 200
        assert served.ask("third").status_code == 200
        assert served.controller.begun == ["first", "third"]


@pytest.mark.parametrize("stream", [False, True])
def test_stopping_ends_what_runs_refuses_what_waits_and_frees_the_port(stream: bool):
    with serving(StandIn()) as served, ThreadPoolExecutor(2) as clients:
        served.controller.hold.clear()
        running = clients.submit(served.ask, "running", stream=stream)
        until(lambda: served.controller.begun == ["running"])
        waiting = clients.submit(served.ask, "waiting", stream=stream)
        until(lambda: served.service.line.waiting == 1)
        served.service.stop()
        assert waiting.result().status_code == 503
        served.controller.hold.set()
        answer = running.result()
        parts = events(answer) if stream else [answer.json()]
        assert "".join(part["choices"][0]["text"] for part in parts) == text_of("running", 4)
        port = served.port
    assert served.controller.begun == ["running"]
    listen(port).close()


HALF = f"{HEAD}50\r\n\r\n{{"


def test_half_a_body_is_refused_and_its_connection_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serve, "BODY_S", 0.1)
    with serving(StandIn()) as served, socket.create_connection(("127.0.0.1", served.port), timeout=120) as client:
        client.sendall(HALF.encode())
        head, _, body = b"".join(iter(lambda: client.recv(4096), b"")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["error"] == {
            "message": "body: 1 bytes given in 0.1 s, valid is all of it in that time",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
        monkeypatch.undo()
        assert served.ask("and on").status_code == 200


def test_half_a_body_holds_no_stop_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serve, "STOP_S", 0.1)
    with socket.socket() as client, serving(StandIn()) as served:  # which fails where it does not stop
        client.connect(("127.0.0.1", served.port))
        client.sendall(HALF.encode())
        assert served.ask("and on").status_code == 200


def test_a_stream_that_nobody_reads_holds_no_stop_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serve, "STOP_S", 0.1)
    name = "m" * 20_000  # is in each event, so that they are more than the sockets hold
    with socket.socket() as client, serving(StandIn(), name) as served:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", served.port))
        body = json.dumps(completion("long", 500, model=name, stream=True))
        client.sendall(f"{HEAD}{len(body)}\r\n\r\n{body}".encode())
        until(lambda: served.controller.written == 500)
