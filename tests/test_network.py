"""The hub is asked by a real socket, and given up in time."""

import socket
import threading

import pytest
from huggingface_hub import constants

from tasks import network

PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """No offline mode and no proxy, whatever this machine's variables say."""
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", *PROXIES):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(network, "SECONDS_TO_ANSWER", 60)


@pytest.fixture
def listening(monkeypatch):
    """A socket at the hub's address that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield server


@pytest.fixture
def answering(listening):
    """The hub's address answers: with a refusal, which is an answer too."""
    listening.settimeout(60)
    asked = []

    def answer():
        connection, _ = listening.accept()
        with connection:
            asked.append(connection.recv(4096))
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    return asked


def test_a_refusal_is_an_answer(answering):
    assert network.hub_answers()
    assert answering[0].startswith(b"GET / ")


def test_a_hub_where_nothing_listens_does_not_answer(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert not network.hub_answers()


def test_a_hub_that_never_answers_is_given_up(listening, monkeypatch):
    monkeypatch.setattr(network, "SECONDS_TO_ANSWER", 0.2)
    assert not network.hub_answers()


def test_offline_nobody_is_asked(listening, monkeypatch):
    listening.settimeout(0.1)
    monkeypatch.setenv("HF_HUB_OFFLINE", "true")
    assert not network.hub_answers()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    assert not network.hub_answers("HF_DATASETS_OFFLINE")
    with pytest.raises(TimeoutError):
        listening.accept()


def test_the_offline_mode_of_one_client_is_not_that_of_another(answering, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    assert network.hub_answers()
